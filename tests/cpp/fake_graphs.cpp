// Recording a stream into a graph, and launching it again and again.
#include "fake_cudart.h"
#include "fake_device.h"

namespace fake {
namespace {

int live_graphs = 0;
thread_local CUstream_st* recorded_here = nullptr;  // the stream this thread records

}  // namespace

int unsafe_call() {
    if (!recorded_here || !recorded_here->recording) return kSuccess;
    recorded_here->recording->invalid = true;
    return kCaptureUnsupported;
}

}  // namespace fake

using namespace fake;

extern "C" {

int cudaStreamBeginCapture(CUstream_st* stream, int) {
    return guarded(__func__, [&](auto&) {
        if (stream->recording) return kIllegalState;
        stream->recording = std::make_unique<CUgraph_st>();
        stream->recording->thread = std::this_thread::get_id();
        recorded_here = stream;
        return kSuccess;
    });
}

int cudaStreamEndCapture(CUstream_st* stream, CUgraph_st** graph) {
    return guarded(__func__, [&](auto&) {
        *graph = nullptr;
        if (!stream->recording) return kIllegalState;
        if (stream->recording->thread != std::this_thread::get_id()) return kCaptureWrongThread;
        recorded_here = nullptr;
        const std::unique_ptr<CUgraph_st> recorded = std::move(stream->recording);
        if (recorded->invalid) return kCaptureInvalidated;
        *graph = new CUgraph_st(*recorded);
        ++live_graphs;
        return kSuccess;
    });
}

int cudaGraphDestroy(CUgraph_st* graph) {
    const Lock lock(mutex);
    delete graph;
    --live_graphs;
    return obstacle(__func__, lock);
}

int cudaGraphInstantiate(CUgraphExec_st** executable, CUgraph_st* graph, unsigned long long) {
    return guarded(__func__, [&](auto&) {
        *executable = new CUgraphExec_st{graph->nodes, nullptr};
        ++live_graphs;
        return kSuccess;
    });
}

int cudaGraphExecDestroy(CUgraphExec_st* executable) {
    const Lock lock(mutex);
    delete executable;
    --live_graphs;
    return obstacle(__func__, lock);
}

int cudaGraphLaunch(CUgraphExec_st* executable, CUstream_st* stream) {
    return guarded(__func__, [&](auto&) {
        Work work{{{"graph", nullptr}}, executable->last, std::make_shared<Point>()};
        work.nodes.insert(work.nodes.end(), executable->nodes.begin(), executable->nodes.end());
        if (!stream->recording) executable->last = work.record;
        return enqueue(stream, std::move(work));
    });
}

int fake_cuda_is_recorded(CUstream_st* stream) {
    const Lock lock(mutex);
    return stream->recording != nullptr;
}

int fake_cuda_live_graphs() {
    const Lock lock(mutex);
    return live_graphs;
}
}
