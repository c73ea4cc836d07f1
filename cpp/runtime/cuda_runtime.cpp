// CUDA's streams and events do the ordering. What is added here: exceptions of host functions find their report
// (cuda_host_calls.h), and a thread per stream hands out notices, since CUDA's own callbacks may neither use CUDA nor
// come after an error.
#include "runtime/cuda_runtime.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/cuda_api.h"
#include "runtime/cuda_host_calls.h"
#include "runtime/own.h"

namespace omni2 {
namespace {

using Api = std::shared_ptr<const CudaApi>;

struct Destroy {
    Api api;

    void operator()(CUstream_st* stream) const { ignore(api->cudaStreamDestroy(stream)); }
    void operator()(CUevent_st* event) const { ignore(api->cudaEventDestroy(event)); }
    void ignore(CudaStatus status) const {
        if (status != kCudaSuccess) api->cudaGetLastError();
    }
};

using StreamHandle = std::unique_ptr<CUstream_st, Destroy>;
using EventHandle = std::unique_ptr<CUevent_st, Destroy>;

StreamHandle create_stream(const Api& api, int priority) {
    CUstream_st* stream = nullptr;
    check(*api, "cudaStreamCreateWithPriority",
          api->cudaStreamCreateWithPriority(&stream, kCudaStreamNonBlocking, priority));
    return StreamHandle(stream, Destroy{api});
}

EventHandle create_event(const Api& api) {
    CUevent_st* event = nullptr;
    check(*api, "cudaEventCreateWithFlags",
          api->cudaEventCreateWithFlags(&event, kCudaEventBlockingSync | kCudaEventDisableTiming));
    return EventHandle(event, Destroy{api});
}

std::exception_ptr device_error(const CudaApi& api, const char* function, CudaStatus status) {
    api.cudaGetLastError();
    return std::make_exception_ptr(cuda_failure(api, function, status));
}

void rethrow(const std::exception_ptr& failure) {
    if (failure) std::rethrow_exception(failure);
}

class CudaEvent final : public Event {
public:
    explicit CudaEvent(Api api) : api_(std::move(api)), handle_(create_event(api_)) {}

    CUevent_st* handle() const { return handle_.get(); }

    void recorded(Place place) {
        const std::lock_guard<std::mutex> lock(mutex_);
        place_ = std::move(place);
    }

    void synchronize() const {
        const CudaStatus status = api_->cudaEventSynchronize(handle_.get());
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            rethrow(place_.failure());
        }
        check(*api_, "cudaEventSynchronize", status);
    }

private:
    Api api_;
    EventHandle handle_;
    mutable std::mutex mutex_;
    Place place_;
};

class CudaGraph final : public Graph {
public:
    explicit CudaGraph(void* executable) : executable_(static_cast<CUgraphExec_st*>(executable)) {}

    CUgraphExec_st* executable() const { return executable_; }

private:
    CUgraphExec_st* executable_;
};

// Waits for events one after another, on a thread of its own, and hands out the notice that belongs to each.
class Notices {
public:
    Notices(Api api, HostCalls& calls) : api_(std::move(api)), calls_(calls), thread_([this] { run(); }) {}

    ~Notices() {
        if (thread_.joinable()) close();
    }

    // Returns when all have been handed out, those too that notices have added meanwhile.
    void close() {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            closing_ = true;
            changed_.notify_one();
        }
        thread_.join();
    }

    // Records an event and hands out `notice` behind it; where the device refuses, the notice gets its error.
    void add(CUstream_st* stream, Place place, Notice notice) {
        Waiting waiting{EventHandle(nullptr, Destroy{api_}), nullptr, std::move(place), std::move(notice)};
        try {
            waiting.event = spare_event();
            check(*api_, "cudaEventRecord", api_->cudaEventRecord(waiting.event.get(), stream));
        } catch (const RuntimeFailure&) {
            waiting.refusal = std::current_exception();
        }
        const std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(std::move(waiting));
        changed_.notify_one();
    }

private:
    struct Waiting {
        EventHandle event;
        std::exception_ptr refusal;  // why there is no event to wait for
        Place place;
        Notice notice;
    };

    void run() noexcept {  // a notice must not throw
        while (hand_out_next()) {
        }
    }

    bool hand_out_next() {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
        if (queue_.empty()) return false;
        Waiting waiting = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();

        std::exception_ptr error = waiting.refusal ? waiting.refusal : wait_for(waiting.event.get());
        if (error) error = calls_.lose_device(error);
        const std::exception_ptr thrown = waiting.place.failure();
        if (!error) {
            lock.lock();
            spare_.push_back(std::move(waiting.event));
            lock.unlock();
        }
        waiting.notice(thrown ? thrown : error);
        return true;
    }

    std::exception_ptr wait_for(CUevent_st* event) const {
        const CudaStatus status = api_->cudaEventSynchronize(event);
        return status == kCudaSuccess ? calls_.lost() : device_error(*api_, "work on a stream", status);
    }

    EventHandle spare_event() {
        std::unique_lock<std::mutex> lock(mutex_);
        if (spare_.empty()) {
            lock.unlock();
            return create_event(api_);
        }
        EventHandle event = std::move(spare_.back());
        spare_.pop_back();
        return event;
    }

    const Api api_;
    HostCalls& calls_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Waiting> queue_;
    std::vector<EventHandle> spare_;
    bool closing_ = false;
    std::thread thread_;  // last: it uses all of the above
};

class CudaStream final : public Stream {
public:
    CudaStream(Api api, int priority)
        : api_(std::move(api)), priority_(priority), stream_(create_stream(api_, priority)), notices_(api_, calls_) {}

    ~CudaStream() override {
        notices_.close();  // first: a notice may still enqueue something
        try {
            synchronize();
        } catch (...) {  // nobody is left to report it to
        }
    }

    int priority() const override { return priority_; }
    std::uintptr_t handle() const override { return reinterpret_cast<std::uintptr_t>(stream_.get()); }

    void record(CudaEvent& event) {
        const std::lock_guard<std::mutex> order(order_);
        check(*api_, "cudaEventRecord", api_->cudaEventRecord(event.handle(), stream_.get()));
        event.recorded(calls_.here());
    }

    void wait(const CudaEvent& event) {
        check(*api_, "cudaStreamWaitEvent", api_->cudaStreamWaitEvent(stream_.get(), event.handle(), 0));
    }

    void copy(void* to, const void* from, size_t bytes, CopyKind kind) {
        check(*api_, "cudaMemcpyAsync", api_->cudaMemcpyAsync(to, from, bytes, static_cast<int>(kind), stream_.get()));
    }

    void call(std::function<void()> function) {
        const std::lock_guard<std::mutex> order(order_);
        calls_.add(std::move(function));
        const CudaStatus status = api_->cudaLaunchHostFunc(
            stream_.get(), [](void* calls) { static_cast<HostCalls*>(calls)->run_next(); }, &calls_);
        if (status != kCudaSuccess) calls_.drop_last();
        check(*api_, "cudaLaunchHostFunc", status);
    }

    void launch(const CudaGraph& graph) {
        check(*api_, "cudaGraphLaunch", api_->cudaGraphLaunch(graph.executable(), stream_.get()));
    }

    void notify(Notice notice) {
        const std::lock_guard<std::mutex> order(order_);
        notices_.add(stream_.get(), calls_.report(), std::move(notice));
    }

    void synchronize() {
        if (calls_.is_this_thread()) throw std::logic_error("a stream's own work must not wait for the stream");
        std::unique_lock<std::mutex> order(order_);
        const Place reported = calls_.report();
        order.unlock();
        const CudaStatus status = api_->cudaStreamSynchronize(stream_.get());
        if (status != kCudaSuccess) calls_.lose_device(device_error(*api_, "cudaStreamSynchronize", status));
        rethrow(reported.failure());
        rethrow(calls_.lost());
    }

private:
    const Api api_;
    const int priority_;
    std::mutex order_;  // held while something is enqueued, so that CUDA and `calls_` see one order
    HostCalls calls_;
    StreamHandle stream_;
    Notices notices_;
};

class CudaRuntime final : public Runtime {
public:
    explicit CudaRuntime(Api api) : api_(std::move(api)) {
        int devices = 0;
        check(*api_, "cudaGetDeviceCount", api_->cudaGetDeviceCount(&devices));
        if (devices == 0)
            throw RuntimeFailure("there is no CUDA device", "let CUDA_VISIBLE_DEVICES name one, or run on the CPU");
        check(*api_, "cudaDeviceGetStreamPriorityRange",
              api_->cudaDeviceGetStreamPriorityRange(&least_urgent_, &most_urgent_));
    }

    const char* name() const override { return "cuda"; }

    std::unique_ptr<Stream> stream(int priority) override {
        return std::make_unique<CudaStream>(api_, std::clamp(priority, most_urgent_, least_urgent_));
    }

    std::unique_ptr<Event> event() override { return std::make_unique<CudaEvent>(api_); }

    void record(Event& event, Stream& stream) override { own<CudaStream>(stream).record(own<CudaEvent>(event)); }
    void wait(Stream& stream, Event& event) override { own<CudaStream>(stream).wait(own<CudaEvent>(event)); }

    void copy(void* to, const void* from, size_t bytes, CopyKind kind, Stream& stream) override {
        own<CudaStream>(stream).copy(to, from, bytes, kind);
    }

    void call(Stream& stream, std::function<void()> function) override {
        own<CudaStream>(stream).call(std::move(function));
    }

    void launch(Graph& graph, Stream& stream) override { own<CudaStream>(stream).launch(own<CudaGraph>(graph)); }
    void notify(Stream& stream, Notice notice) override { own<CudaStream>(stream).notify(std::move(notice)); }
    void synchronize(Stream& stream) override { own<CudaStream>(stream).synchronize(); }
    void synchronize(Event& event) override { own<CudaEvent>(event).synchronize(); }

private:
    const Api api_;
    int least_urgent_ = 0, most_urgent_ = 0;
};

}  // namespace

std::shared_ptr<Runtime> cuda_runtime(const std::string& library) {
    return std::make_shared<CudaRuntime>(load_cuda_api(library));
}

std::unique_ptr<Graph> cuda_graph(void* executable) { return std::make_unique<CudaGraph>(executable); }

}  // namespace omni2
