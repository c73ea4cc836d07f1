#include "runtime/cuda_stream.h"

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

void rethrow(const std::exception_ptr& failure) {
    if (failure) std::rethrow_exception(failure);
}

}  // namespace

Handle<CUevent_st> create_event(const Api& api, unsigned flags) {
    CUevent_st* event = nullptr;
    OMNI2_CUDA(*api, cudaEventCreateWithFlags, &event, kCudaEventBlockingSync | flags);
    return owned(api, event);
}

std::exception_ptr device_error(const CudaApi& api, const char* function, CudaStatus status) {
    ignore(api, status);
    return std::make_exception_ptr(cuda_failure(api, function, status));
}

CudaEvent::CudaEvent(Api api, bool timed)
    : api_(std::move(api)), handle_(create_event(api_, timed ? 0 : kCudaEventDisableTiming)) {}

void CudaEvent::recorded(Place place) {
    const std::lock_guard<std::mutex> lock(mutex_);
    place_ = std::move(place);
}

void CudaEvent::synchronize() const {
    const CudaStatus status = api_->cudaEventSynchronize(handle_.get());
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        rethrow(place_.failure());
    }
    check(*api_, "cudaEventSynchronize", status);
}

float CudaEvent::since(const CudaEvent& start) const {
    float milliseconds = 0;
    OMNI2_CUDA(*api_, cudaEventElapsedTime, &milliseconds, start.handle(), handle());
    return milliseconds;
}

CudaStream::CudaStream(Api api, int priority)
    : api_(std::move(api)), priority_(priority), stream_(create_stream(api_, priority)), notices_(api_, calls_) {}

CudaStream::~CudaStream() {
    notices_.close();  // first: a notice may still enqueue something
    try {
        if (capturing_) end_capture();
        synchronize();
    } catch (...) {  // nobody is left to report it to
    }
}

void CudaStream::record(CudaEvent& event) {
    const std::lock_guard<std::mutex> order(order_);
    OMNI2_CUDA(*api_, cudaEventRecord, event.handle(), stream_.get());
    event.recorded(calls_.here());
}

void CudaStream::wait(const CudaEvent& event) {
    OMNI2_CUDA(*api_, cudaStreamWaitEvent, stream_.get(), event.handle(), 0);
}

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

void CudaStream::call(std::function<void()> function) {
    const std::lock_guard<std::mutex> order(order_);
    check_running("a host function");
    calls_.add(std::move(function));
    const CudaStatus status = api_->cudaLaunchHostFunc(
        stream_.get(), [](void* calls) { static_cast<HostCalls*>(calls)->run_next(); }, &calls_);
    if (status != kCudaSuccess) calls_.drop_last();
    check(*api_, "cudaLaunchHostFunc", status);
}

void CudaStream::notify(Notice notice) {
    const std::lock_guard<std::mutex> order(order_);
    check_running("a notice");
    notices_.add(stream_.get(), calls_.report(), std::move(notice));
}

void CudaStream::synchronize() {
    if (calls_.is_this_thread()) throw std::logic_error("a stream's own work must not wait for the stream");
    std::unique_lock<std::mutex> order(order_);
    check_running("waiting");
    const Place reported = calls_.report();
    order.unlock();
    const CudaStatus status = api_->cudaStreamSynchronize(stream_.get());
    if (status != kCudaSuccess) calls_.lose_device(device_error(*api_, "cudaStreamSynchronize", status));
    rethrow(reported.failure());
    rethrow(calls_.lost());
}

void CudaStream::begin_capture() {
    const std::lock_guard<std::mutex> order(order_);
    check_running("another capture");
    OMNI2_CUDA(*api_, cudaStreamBeginCapture, stream_.get(), kCudaCaptureThreadLocal);
    capturing_ = true;
    recording_begins();
}

std::unique_ptr<CudaGraph> CudaStream::end_capture() {
    CUgraph_st* graph = nullptr;
    {
        const std::lock_guard<std::mutex> order(order_);
        if (!capturing_) throw std::logic_error("the stream records nothing");
        capturing_ = false;
        const CudaStatus status = api_->cudaStreamEndCapture(stream_.get(), &graph);
        recording_ends();
        check(*api_, "cudaStreamEndCapture", status);
    }
    const auto recorded = owned(api_, graph);
    CUgraphExec_st* executable = nullptr;
    OMNI2_CUDA(*api_, cudaGraphInstantiate, &executable, recorded.get(), 0);
    return std::make_unique<CudaGraph>(owned(api_, executable));
}

void CudaStream::check_running(const char* what) const {
    if (capturing_) throw std::logic_error(std::string(what) + " cannot become part of a graph");
}

}  // namespace omni2
