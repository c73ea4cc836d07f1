// A libcudart without a GPU: a stream is a thread with a queue, and "device memory" is the host's. It behaves as CUDA
// documents it where that matters here: host functions must not use CUDA, an error is the whole device's and stays.
#include "fake_cudart.h"

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

constexpr int kSuccess = 0, kInvalidValue = 1, kInvalidHandle = 400, kIllegalAddress = 700, kNotPermitted = 800,
              kInsufficientDriver = 35, kMemoryAllocation = 2, kLaunchFailure = 719;
constexpr int kLeastUrgent = 0, kMostUrgent = -5;

// One lock for everything: a stand-in need not be fast.
std::mutex mutex;
std::condition_variable changed;
int lost = kSuccess;  // the error the device was lost with
int devices = 1;
int live_streams = 0, live_events = 0;
std::map<std::string, int> refusals;

struct Background {  // what the process waits for in the end
    ~Background() {
        for (std::thread& thread : threads) thread.join();
    }
    std::vector<std::thread> threads;
} background;

thread_local bool in_host_function = false;
thread_local int last_error = kSuccess;

struct Point {
    bool reached = false;
};

}  // namespace

struct CUevent_st {
    std::shared_ptr<Point> last;  // nullptr: never recorded
};

struct CUgraphExec_st {
    void (*function)(void*);
    void* data;
    int microseconds;
};

struct CUstream_st {
    struct Work {
        std::function<void()> run;               // without the lock; dropped when the device is lost
        std::shared_ptr<Point> awaited, record;  // before and after it
    };

    CUstream_st() : worker([this] { work(); }) {}

    ~CUstream_st() {
        {
            const std::lock_guard<std::mutex> lock(mutex);
            closing = true;
            changed.notify_all();
        }
        worker.join();
    }

    void work() {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            changed.wait(lock, [this] { return closing || !queue.empty(); });
            if (queue.empty()) return;
            Work next = std::move(queue.front());
            queue.pop_front();
            if (next.awaited) changed.wait(lock, [&] { return lost != kSuccess || next.awaited->reached; });
            if (next.run && lost == kSuccess) {
                lock.unlock();
                next.run();
                lock.lock();
            }
            if (next.record) next.record->reached = true;
            ++finished;
            changed.notify_all();
        }
    }

    std::deque<Work> queue;
    unsigned long long enqueued = 0, finished = 0;
    bool closing = false;
    std::thread worker;
};

namespace {

// What a call returns instead of doing its work, with `lock` held; kSuccess: it works.
int obstacle(const char* function, const std::unique_lock<std::mutex>&) {
    if (in_host_function) return kNotPermitted;
    if (lost != kSuccess) return lost;
    const auto refusal = refusals.find(function);
    if (refusal == refusals.end()) return kSuccess;
    const int status = refusal->second;
    refusals.erase(refusal);
    return status;
}

// Runs body() unless there is an obstacle.
template <class Body>
int guarded(const char* function, Body body) {
    std::unique_lock<std::mutex> lock(mutex);
    int status = obstacle(function, lock);
    if (status == kSuccess) status = body(lock);
    if (status != kSuccess) last_error = status;
    return status;
}

int enqueue(CUstream_st* stream, CUstream_st::Work work) {
    if (!stream) return kInvalidHandle;
    stream->queue.push_back(std::move(work));
    ++stream->enqueued;
    changed.notify_all();
    return kSuccess;
}

int enqueue_run(CUstream_st* stream, std::function<void()> run) {
    return enqueue(stream, {std::move(run), nullptr, nullptr});
}

void take_time(int microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }

}  // namespace

extern "C" {

int cudaGetDeviceCount(int* count) {
    return guarded(__func__, [&](auto&) {
        *count = devices;
        return kSuccess;
    });
}

int cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
    return guarded(__func__, [&](auto&) {
        *least = kLeastUrgent;
        *greatest = kMostUrgent;
        return kSuccess;
    });
}

int cudaStreamCreateWithPriority(CUstream_st** stream, unsigned flags, int priority) {
    return guarded(__func__, [&](auto&) {
        if (flags > 1 || priority > kLeastUrgent || priority < kMostUrgent) return kInvalidValue;
        *stream = new CUstream_st;
        ++live_streams;
        return kSuccess;
    });
}

int cudaStreamDestroy(CUstream_st* stream) {
    const std::unique_lock<std::mutex> lock(mutex);
    background.threads.emplace_back([stream] { delete stream; });  // as in CUDA, what is queued still runs
    --live_streams;
    return obstacle(__func__, lock);
}

int cudaStreamSynchronize(CUstream_st* stream) {
    return guarded(__func__, [&](auto& lock) {
        const auto goal = stream->enqueued;
        changed.wait(lock, [&] { return lost != kSuccess || stream->finished >= goal; });
        return lost;
    });
}

int cudaStreamWaitEvent(CUstream_st* stream, CUevent_st* event, unsigned) {
    return guarded(__func__, [&](auto&) { return enqueue(stream, {nullptr, event->last, nullptr}); });
}

int cudaEventCreateWithFlags(CUevent_st** event, unsigned flags) {
    return guarded(__func__, [&](auto&) {
        if (flags > 7) return kInvalidValue;
        *event = new CUevent_st;
        ++live_events;
        return kSuccess;
    });
}

int cudaEventDestroy(CUevent_st* event) {
    delete event;
    const std::unique_lock<std::mutex> lock(mutex);
    --live_events;
    return obstacle(__func__, lock);
}

int cudaEventRecord(CUevent_st* event, CUstream_st* stream) {
    return guarded(__func__, [&](auto&) {
        event->last = std::make_shared<Point>();
        return enqueue(stream, {nullptr, nullptr, event->last});
    });
}

int cudaEventSynchronize(CUevent_st* event) {
    return guarded(__func__, [&](auto& lock) {
        const std::shared_ptr<Point> point = event->last;
        changed.wait(lock, [&] { return lost != kSuccess || !point || point->reached; });
        return lost;
    });
}

int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, CUstream_st* stream) {
    return guarded(__func__, [&](auto&) {
        if (kind < 0 || kind > 4) return kInvalidValue;
        return enqueue_run(stream, [=] {
            if (bytes > 0) std::memcpy(to, from, bytes);
        });
    });
}

int cudaLaunchHostFunc(CUstream_st* stream, void (*function)(void*), void* data) {
    return guarded(__func__, [&](auto&) {
        return enqueue_run(stream, [=] {
            in_host_function = true;
            function(data);
            in_host_function = false;
        });
    });
}

int cudaGraphLaunch(CUgraphExec_st* graph, CUstream_st* stream) {
    return guarded(__func__, [&](auto&) {
        return enqueue_run(stream, [node = *graph] {
            take_time(node.microseconds);
            if (node.function) node.function(node.data);
        });
    });
}

int cudaGetLastError() {
    const std::lock_guard<std::mutex> lock(mutex);
    return std::exchange(last_error, lost);
}

const char* cudaGetErrorName(int status) {
    switch (status) {
        case kMemoryAllocation: return "cudaErrorMemoryAllocation";
        case kInsufficientDriver: return "cudaErrorInsufficientDriver";
        case kIllegalAddress: return "cudaErrorIllegalAddress";
        case kLaunchFailure: return "cudaErrorLaunchFailure";
        case kNotPermitted: return "cudaErrorNotPermitted";
        default: return "cudaErrorUnknown";
    }
}

const char* cudaGetErrorString(int status) {
    return status == kIllegalAddress ? "an illegal memory access was encountered" : "an injected error";
}

void fake_cuda_reset() {
    const std::lock_guard<std::mutex> lock(mutex);
    lost = kSuccess;
    devices = 1;
    refusals.clear();
}

void fake_cuda_set_devices(int count) {
    const std::lock_guard<std::mutex> lock(mutex);
    devices = count;
}

void fake_cuda_refuse_next(const char* function, int status) {
    const std::lock_guard<std::mutex> lock(mutex);
    refusals[function] = status;
}

void fake_cuda_delay(CUstream_st* stream, int microseconds) {
    const std::lock_guard<std::mutex> lock(mutex);
    enqueue_run(stream, [=] { take_time(microseconds); });
}

void fake_cuda_fault(CUstream_st* stream, int status) {
    const std::lock_guard<std::mutex> lock(mutex);
    enqueue_run(stream, [=] {
        const std::lock_guard<std::mutex> here(mutex);
        lost = status;
        changed.notify_all();
    });
}

void* fake_cuda_graph(void (*function)(void*), void* data, int microseconds) {
    return new CUgraphExec_st{function, data, microseconds};
}

void fake_cuda_graph_destroy(void* graph) { delete static_cast<CUgraphExec_st*>(graph); }

int fake_cuda_live_streams() {
    const std::lock_guard<std::mutex> lock(mutex);
    return live_streams;
}

int fake_cuda_live_events() {
    const std::lock_guard<std::mutex> lock(mutex);
    return live_events;
}
}
