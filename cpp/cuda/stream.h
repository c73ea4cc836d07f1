// Streams of a device, events in them, and graphs captured from them. Each stage has a stream with a priority; the
// stage's thread enqueues on it.
#pragma once

#include <atomic>
#include <cstdint>

#include "cuda/handles.h"

namespace omni2 {

// A point in a stream: where it was recorded last.
class CudaEvent {
public:
    explicit CudaEvent(Api api, bool timed = false);

    CUevent_st* handle() const { return handle_.get(); }
    void synchronize() const;  // an event that was never recorded is not waited for

    // Milliseconds of the device's time since another event. Both are `timed`, and the streams have passed them.
    float since(const CudaEvent& start) const;

private:
    const Api api_;
    const Handle<CUevent_st> handle_;
};

// What a stream captured, to be launched many times.
class CudaGraph {
public:
    explicit CudaGraph(Handle<CUgraphExec_st> executable) : executable_(std::move(executable)) {}

    CUgraphExec_st* executable() const { return executable_.get(); }

private:
    const Handle<CUgraphExec_st> executable_;
};

// Rows of equal width, each `pitch` bytes behind the one before.
struct Rows {
    void* begin;
    size_t pitch;
};

// What a kernel is launched with. `arguments` point to the values of its parameters, which are copied at once.
struct KernelCall {
    CUkern_st* kernel;
    CudaDim3 grid, block;
    size_t shared_memory = 0;  // dynamic, bytes
    void** arguments = nullptr;
};

// Work in order. Copies are asynchronous: pinned ranges stay valid and untouched until the stream has passed; pageable
// ones CUDA copies at once (to the device) or waits for (from the device). An error of the device is final: every later
// call reports it.
class CudaStream {
public:
    CudaStream(Api api, int priority);
    ~CudaStream();  // waits until everything on it has run
    CudaStream(const CudaStream&) = delete;
    CudaStream& operator=(const CudaStream&) = delete;

    std::uintptr_t handle() const { return reinterpret_cast<std::uintptr_t>(stream_.get()); }  // the cudaStream_t

    void record(CudaEvent& event);
    void copy(void* to, const void* from, size_t bytes, CopyKind kind);
    void copy(const Rows& to, const Rows& from, size_t width, size_t rows, CopyKind kind);
    void fill(void* memory, unsigned char byte, size_t bytes);
    void launch(const KernelCall& call);
    void launch(const CudaGraph& graph);
    void synchronize();

    // Between the two, both on one thread, what is enqueued on the stream is captured instead of run. Waiting for the
    // stream and a second begin_capture() are refused (std::logic_error). end_capture() throws what could not be
    // captured; the capture is over then, too.
    void begin_capture();
    std::unique_ptr<CudaGraph> end_capture();

private:
    void refuse_in_capture(const char* what) const;

    const Api api_;
    const Handle<CUstream_st> stream_;
    CudaEvent passed_;  // what synchronize() waits for: waiting for the stream itself would keep a processor busy
    std::atomic<bool> capturing_{false};
};

}  // namespace omni2
