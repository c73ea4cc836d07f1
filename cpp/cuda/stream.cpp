#include "cuda/stream.h"

#include <stdexcept>
#include <string>
#include <utility>

namespace omni2 {
namespace {

Handle<CUstream_st> create_stream(const Api& api, int priority) {
    CUstream_st* stream = nullptr;
    OMNI2_CUDA(*api, cudaStreamCreateWithPriority, &stream, kCudaStreamNonBlocking, priority);
    return owned(api, stream);
}

Handle<CUevent_st> create_event(const Api& api, bool timed) {
    CUevent_st* event = nullptr;
    const unsigned flags = timed ? kCudaEventBlockingSync : kCudaEventBlockingSync | kCudaEventDisableTiming;
    OMNI2_CUDA(*api, cudaEventCreateWithFlags, &event, flags);
    return owned(api, event);
}

}  // namespace

CudaEvent::CudaEvent(Api api, bool timed) : api_(std::move(api)), handle_(create_event(api_, timed)) {}

void CudaEvent::synchronize() const { OMNI2_CUDA(*api_, cudaEventSynchronize, handle_.get()); }

float CudaEvent::since(const CudaEvent& start) const {
    float milliseconds = 0;
    OMNI2_CUDA(*api_, cudaEventElapsedTime, &milliseconds, start.handle(), handle());
    return milliseconds;
}

CudaStream::CudaStream(Api api, int priority)
    : api_(std::move(api)), stream_(create_stream(api_, priority)), passed_(api_) {}

CudaStream::~CudaStream() {
    try {
        if (capturing_) end_capture();
        synchronize();
    } catch (...) {  // a destructor cannot report it
    }
}

void CudaStream::record(CudaEvent& event) { OMNI2_CUDA(*api_, cudaEventRecord, event.handle(), stream_.get()); }

void CudaStream::copy(void* to, const void* from, size_t bytes, CopyKind kind) {
    OMNI2_CUDA(*api_, cudaMemcpyAsync, to, from, bytes, static_cast<int>(kind), stream_.get());
}

void CudaStream::copy(const Rows& to, const Rows& from, size_t width, size_t rows, CopyKind kind) {
    OMNI2_CUDA(*api_, cudaMemcpy2DAsync, to.begin, to.pitch, from.begin, from.pitch, width, rows,
               static_cast<int>(kind), stream_.get());
}

void CudaStream::fill(void* memory, unsigned char byte, size_t bytes) {
    OMNI2_CUDA(*api_, cudaMemsetAsync, memory, byte, bytes, stream_.get());
}

void CudaStream::launch(const KernelCall& call) {
    OMNI2_CUDA(*api_, cudaLaunchKernel, call.kernel, call.grid, call.block, call.arguments, call.shared_memory,
               stream_.get());
}

void CudaStream::launch(const CudaGraph& graph) {
    OMNI2_CUDA(*api_, cudaGraphLaunch, graph.executable(), stream_.get());
}

void CudaStream::synchronize() {
    refuse_in_capture("waiting");
    record(passed_);
    passed_.synchronize();
}

void CudaStream::begin_capture() {
    refuse_in_capture("another capture");
    OMNI2_CUDA(*api_, cudaStreamBeginCapture, stream_.get(), kCudaCaptureThreadLocal);
    capturing_ = true;
    capture_begins();
}

std::unique_ptr<CudaGraph> CudaStream::end_capture() {
    if (!capturing_.exchange(false)) throw std::logic_error("the stream captures nothing");
    CUgraph_st* graph = nullptr;
    const CudaStatus status = api_->cudaStreamEndCapture(stream_.get(), &graph);
    capture_ends();
    check(*api_, "cudaStreamEndCapture", status);
    const auto captured = owned(api_, graph);
    CUgraphExec_st* executable = nullptr;
    OMNI2_CUDA(*api_, cudaGraphInstantiate, &executable, captured.get(), 0);
    return std::make_unique<CudaGraph>(owned(api_, executable));
}

void CudaStream::refuse_in_capture(const char* what) const {
    if (capturing_) throw std::logic_error(std::string(what) + " cannot become part of a graph");
}

}  // namespace omni2
