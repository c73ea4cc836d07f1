// A libcudart without a GPU: a stream is a thread with a queue. It behaves as CUDA documents it where that matters
// here: host functions must not use CUDA, an error is the whole device's and stays, what is enqueued on a stream that
// records does not run. This file: devices, streams, events, errors; fake_memory.cpp, fake_graphs.cpp and
// fake_kernels.cpp the rest.
#include "fake_cudart.h"

#include <chrono>
#include <cstring>
#include <map>

#include "fake_device.h"

namespace fake {

std::mutex mutex;
std::condition_variable changed;
int lost = kSuccess;

namespace {

constexpr int kLeastUrgent = 0, kMostUrgent = -5;
constexpr size_t kMemory = size_t{8} << 30;

int devices = 1;
int capability[2] = {8, 9};
int streams_made = 0, live_streams = 0, live_events = 0;
int spinning_waits = 0;
bool logging = false;
std::string log_text;

struct Refusal {
    int status, after;
};
std::map<std::string, Refusal> refusals;

unsigned long long outstanding = 0;  // enqueued on any stream and not finished
std::vector<std::function<void()>> put_off;

struct Background {  // what the process waits for in the end
    ~Background() {
        for (std::thread& thread : threads) thread.join();
    }
    std::vector<std::thread> threads;
} background;

thread_local bool in_host_function = false;
thread_local int last_error = kSuccess;

thread_local long long clock_us = 0;  // a stream's own clock, which events read: work that takes time moves it

double seconds() { return static_cast<double>(clock_us) * 1e-6; }

void finished_one() {
    if (--outstanding > 0) return;
    for (const auto& action : put_off) action();
    put_off.clear();
}

// By the stream's clock; other threads get every chance to run ahead meanwhile.
void take_time(int microseconds) {
    clock_us += microseconds;
    for (int i = 0; microseconds > 0 && i < 50; ++i) std::this_thread::yield();
}

}  // namespace

int obstacle(const char* function, const Lock&) {
    if (in_host_function) return kNotPermitted;
    if (lost != kSuccess) return lost;
    const auto refusal = refusals.find(function);
    if (refusal == refusals.end() || refusal->second.after-- > 0) return kSuccess;
    const int status = refusal->second.status;
    refusals.erase(refusal);
    return status;
}

int remembered(int status) {
    if (status != kSuccess) last_error = status;
    return status;
}

int enqueue(CUstream_st* stream, Work work) {
    if (!stream) return kInvalidHandle;
    if (CUgraph_st* graph = stream->recording.get()) {
        if (graph->invalid) return kCaptureInvalidated;
        graph->nodes.insert(graph->nodes.end(), work.nodes.begin(), work.nodes.end());
        return kSuccess;
    }
    stream->queue.push_back(std::move(work));
    ++stream->enqueued;
    ++outstanding;
    changed.notify_all();
    return kSuccess;
}

int enqueue(CUstream_st* stream, std::string what, std::function<void()> run) {
    return enqueue(stream, Work{{{std::move(what), std::move(run)}}, nullptr, nullptr});
}

int finish(CUstream_st* stream, Lock& lock) {
    const auto goal = stream->enqueued;
    changed.wait(lock, [&] { return lost != kSuccess || stream->finished >= goal; });
    return lost;
}

void when_idle(std::function<void()> action) {
    if (outstanding > 0) return put_off.push_back(std::move(action));
    action();
}

void lose(int status) {
    lost = status;
    changed.notify_all();
}

}  // namespace fake

using namespace fake;

CUstream_st::CUstream_st() : number(++streams_made), worker([this] { work(); }) {}

CUstream_st::~CUstream_st() {
    {
        const Lock lock(mutex);
        closing = true;
        changed.notify_all();
    }
    worker.join();
}

void CUstream_st::work() {
    Lock lock(mutex);
    for (;;) {
        changed.wait(lock, [this] { return closing || !queue.empty(); });
        if (queue.empty()) return;
        Work next = std::move(queue.front());
        queue.pop_front();
        if (next.awaited) changed.wait(lock, [&] { return lost != kSuccess || next.awaited->reached; });
        for (Node& node : next.nodes) {
            if (lost != kSuccess) break;
            if (logging) log_text += std::to_string(number) + " " + node.what + "\n";
            lock.unlock();
            if (node.run) node.run();
            lock.lock();
        }
        next.nodes.clear();
        if (next.record) *next.record = {true, seconds()};
        ++finished;
        finished_one();
        changed.notify_all();
    }
}

extern "C" {

int cudaDriverGetVersion(int* version) {
    return guarded(__func__, [&](auto&) {
        *version = 13000;
        return kSuccess;
    });
}

int cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

int cudaGetDeviceCount(int* count) {
    return guarded(__func__, [&](auto&) {
        *count = devices;
        return kSuccess;
    });
}

int cudaGetDeviceProperties(void* properties, int) {  // only the name is asked for
    return guarded(__func__, [&](auto&) {
        std::strcpy(static_cast<char*>(properties), "a device that is none");
        return kSuccess;
    });
}

int cudaDeviceGetAttribute(int* value, int attribute, int) {
    return guarded(__func__, [&](auto&) {
        if (attribute == 75) *value = capability[0];
        if (attribute == 76) *value = capability[1];
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
    const Lock lock(mutex);
    background.threads.emplace_back([stream] { delete stream; });  // as in CUDA, what is queued still runs
    --live_streams;
    return obstacle(__func__, lock);
}

int cudaStreamSynchronize(CUstream_st* stream) {
    return guarded(__func__, [&](auto& lock) {
        if (stream->recording) {
            stream->recording->invalid = true;
            return kCaptureUnsupported;
        }
        return finish(stream, lock);
    });
}

int cudaEventCreateWithFlags(CUevent_st** event, unsigned flags) {
    return guarded(__func__, [&](auto&) {
        if (flags > 7) return kInvalidValue;
        *event = new CUevent_st{(flags & 2) == 0, (flags & 1) == 0, false, nullptr};
        ++live_events;
        return kSuccess;
    });
}

int cudaEventDestroy(CUevent_st* event) {
    delete event;
    const Lock lock(mutex);
    --live_events;
    return obstacle(__func__, lock);
}

int cudaEventRecord(CUevent_st* event, CUstream_st* stream) {
    return guarded(__func__, [&](auto&) {
        event->captured = stream->recording != nullptr;
        event->last = event->captured ? nullptr : std::make_shared<Point>();
        return enqueue(stream, {{}, nullptr, event->last});
    });
}

int cudaEventSynchronize(CUevent_st* event) {
    return guarded(__func__, [&](auto& lock) {
        if (event->captured) return kCapturedEvent;
        spinning_waits += event->spins;
        const std::shared_ptr<Point> point = event->last;
        changed.wait(lock, [&] { return lost != kSuccess || !point || point->reached; });
        return lost;
    });
}

int cudaEventElapsedTime(float* milliseconds, CUevent_st* start, CUevent_st* stop) {
    return guarded(__func__, [&](auto&) {
        if (!start->timed || !stop->timed || !start->last || !stop->last) return kInvalidHandle;
        if (!start->last->reached || !stop->last->reached) return kNotReady;
        *milliseconds = static_cast<float>(1e3 * (stop->last->seconds - start->last->seconds));
        return kSuccess;
    });
}

int cudaGetLastError() {
    const Lock lock(mutex);
    return std::exchange(last_error, lost);
}

const char* cudaGetErrorName(int status) {
    switch (status) {
        case kInvalidValue: return "cudaErrorInvalidValue";
        case kMemoryAllocation: return "cudaErrorMemoryAllocation";
        case kInsufficientDriver: return "cudaErrorInsufficientDriver";
        case kInvalidImage: return "cudaErrorInvalidKernelImage";
        case kSymbolNotFound: return "cudaErrorSymbolNotFound";
        case kIllegalAddress: return "cudaErrorIllegalAddress";
        case kLaunchFailure: return "cudaErrorLaunchFailure";
        case kNotPermitted: return "cudaErrorNotPermitted";
        case kCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
        case kCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
        default: return "cudaErrorUnknown";
    }
}

const char* cudaGetErrorString(int status) {
    switch (status) {
        case kIllegalAddress: return "an illegal memory access was encountered";
        case kCaptureUnsupported: return "operation not permitted when stream is capturing";
        case kCaptureInvalidated: return "operation failed due to a previous error during capture";
        default: return "an injected error";
    }
}

void fake_cuda_reset() {
    const Lock lock(mutex);
    lost = kSuccess;
    devices = 1;
    capability[0] = 8;
    capability[1] = 9;
    refusals.clear();
    limit_memory(kMemory);
    forget_kernels();
    spinning_waits = 0;
    logging = false;
    log_text.clear();
}

void fake_cuda_set_devices(int count) {
    const Lock lock(mutex);
    devices = count;
}

void fake_cuda_set_memory(size_t bytes) {
    const Lock lock(mutex);
    limit_memory(bytes);
}

void fake_cuda_set_capability(int major, int minor) {
    const Lock lock(mutex);
    capability[0] = major;
    capability[1] = minor;
}

void fake_cuda_refuse_next(const char* function, int status) { fake_cuda_refuse_after(function, status, 0); }

void fake_cuda_refuse_after(const char* function, int status, int after) {
    const Lock lock(mutex);
    refusals[function] = {status, after};
}

void fake_cuda_delay(CUstream_st* stream, int microseconds) {
    const Lock lock(mutex);
    enqueue(stream, "delay", [=] { take_time(microseconds); });
}

void fake_cuda_fault(CUstream_st* stream, int status) {
    const Lock lock(mutex);
    enqueue(stream, "fault", [=] { fake_cuda_lose(status); });
}

int fake_cuda_call(CUstream_st* stream, void (*function)(void*), void* data) {
    return guarded(__func__, [&](auto&) {
        return enqueue(stream, "host function", [=] {
            in_host_function = true;
            function(data);
            in_host_function = false;
        });
    });
}

void fake_cuda_lose(int status) {
    const Lock lock(mutex);
    lose(status);
}

int fake_cuda_settle(int milliseconds) {
    Lock lock(mutex);
    return changed.wait_for(lock, std::chrono::milliseconds(milliseconds), [] { return outstanding == 0; });
}

int fake_cuda_live_streams() {
    const Lock lock(mutex);
    return live_streams;
}

int fake_cuda_spinning_waits() {
    const Lock lock(mutex);
    return spinning_waits;
}

int fake_cuda_live_events() {
    const Lock lock(mutex);
    return live_events;
}

void fake_cuda_log_begin() {
    const Lock lock(mutex);
    logging = true;
    log_text.clear();
}

const char* fake_cuda_log() {
    thread_local std::string text;
    const Lock lock(mutex);
    text = log_text;
    return text.c_str();
}
}
