// CUDA's streams, events and graphs. Streams and events do the ordering; what is added here: exceptions of host
// functions find their report (cuda_host_calls.h), notices come always (cuda_notices.h), and a stream records what is
// enqueued into a graph.
#pragma once

#include <mutex>

#include "runtime/cuda_handles.h"
#include "runtime/cuda_host_calls.h"
#include "runtime/cuda_notices.h"
#include "runtime/runtime.h"

namespace omni2 {

Handle<CUevent_st> create_event(const Api& api, unsigned flags);

// The failure that a status stands for, taken off the thread.
std::exception_ptr device_error(const CudaApi& api, const char* function, CudaStatus status);

class CudaEvent final : public Event {
public:
    explicit CudaEvent(Api api, bool timed = false);

    CUevent_st* handle() const { return handle_.get(); }
    void recorded(Place place);
    void synchronize() const;

    // Milliseconds of the device's time since another event, both `timed` and passed.
    float since(const CudaEvent& start) const;

private:
    Api api_;
    Handle<CUevent_st> handle_;
    mutable std::mutex mutex_;
    Place place_;
};

// A cudaGraphExec_t: somebody else's, or with an owner.
class CudaGraph final : public Graph {
public:
    explicit CudaGraph(CUgraphExec_st* executable) : executable_(executable), owner_(nullptr, Destroy{}) {}
    explicit CudaGraph(Handle<CUgraphExec_st> owner) : executable_(owner.get()), owner_(std::move(owner)) {}

    CUgraphExec_st* executable() const { return executable_; }

private:
    CUgraphExec_st* executable_;
    Handle<CUgraphExec_st> owner_;
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

class CudaStream final : public Stream {
public:
    CudaStream(Api api, int priority);
    ~CudaStream() override;

    int priority() const override { return priority_; }
    std::uintptr_t handle() const override { return reinterpret_cast<std::uintptr_t>(stream_.get()); }

    void record(CudaEvent& event);
    void wait(const CudaEvent& event);
    void copy(void* to, const void* from, size_t bytes, CopyKind kind);
    void copy(const Rows& to, const Rows& from, size_t width, size_t rows, CopyKind kind);
    void fill(void* memory, unsigned char byte, size_t bytes);
    void launch(const KernelCall& call);
    void launch(const CudaGraph& graph);
    void call(std::function<void()> function);
    void notify(Notice notice);
    void synchronize();

    // Between the two, on one thread, what is enqueued on the stream by whomever is recorded and does not run: copies,
    // fills, kernels, graphs; neither host functions nor notices of ours, and nothing may wait (std::logic_error).
    // end_capture() throws what could not be recorded; the stream is out of capture then, too.
    void begin_capture();
    std::unique_ptr<CudaGraph> end_capture();

private:
    void check_running(const char* what) const;  // std::logic_error while it records

    const Api api_;
    const int priority_;
    std::mutex order_;  // held while something is enqueued, so that CUDA and `calls_` see one order
    bool capturing_ = false;
    HostCalls calls_;
    Handle<CUstream_st> stream_;
    Notices notices_;
};

}  // namespace omni2
