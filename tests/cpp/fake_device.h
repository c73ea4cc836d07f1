// The inside of the stand-in libcudart: one lock, streams that are threads, work that runs or is recorded.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace fake {

constexpr int kSuccess = 0, kInvalidValue = 1, kMemoryAllocation = 2, kInvalidPitch = 12, kInsufficientDriver = 35,
              kInvalidImage = 200, kInvalidHandle = 400, kIllegalState = 401, kSymbolNotFound = 500, kNotReady = 600,
              kIllegalAddress = 700, kLaunchFailure = 719, kNotPermitted = 800, kCaptureUnsupported = 900,
              kCaptureInvalidated = 901, kCapturedEvent = 907, kCaptureWrongThread = 908;

// One lock for everything: a stand-in need not be fast.
extern std::mutex mutex;
extern std::condition_variable changed;
extern int lost;  // the error the device was lost with

using Lock = std::unique_lock<std::mutex>;

struct Point {
    bool reached = false;
    double seconds = 0;  // when
};

struct Node {
    std::string what;           // for the log
    std::function<void()> run;  // without the lock
};

struct Work {
    std::vector<Node> nodes;                 // dropped when the device is lost
    std::shared_ptr<Point> awaited, record;  // before and after them
};

}  // namespace fake

struct CUgraph_st {
    std::vector<fake::Node> nodes;
    std::thread::id thread;  // that records it
    bool invalid = false;
};

struct CUgraphExec_st {
    std::vector<fake::Node> nodes;
    std::shared_ptr<fake::Point> last;  // of the launch before: a graph never runs beside itself
};

struct CUevent_st {
    bool timed, spins;  // whether who waits for it keeps a processor busy
    bool captured = false;
    std::shared_ptr<fake::Point> last;  // nullptr: never recorded
};

struct CUstream_st {
    CUstream_st();
    ~CUstream_st();
    void work();

    const int number;
    std::deque<fake::Work> queue;
    unsigned long long enqueued = 0, finished = 0;
    bool closing = false;
    std::unique_ptr<CUgraph_st> recording;
    std::thread worker;  // last: it uses all of the above
};

namespace fake {

// What a call returns instead of doing its work, with the lock held; kSuccess: it works.
int obstacle(const char* function, const Lock&);
int remembered(int status);  // for cudaGetLastError

// Runs body(lock) with the lock, unless there is an obstacle.
template <class Body>
int guarded(const char* function, Body body) {
    Lock lock(mutex);
    int status = obstacle(function, lock);
    if (status == kSuccess) status = body(lock);
    return remembered(status);
}

// All with the lock. Enqueues, or records where the stream does.
int enqueue(CUstream_st* stream, Work work);
int enqueue(CUstream_st* stream, std::string what, std::function<void()> run);

int finish(CUstream_st* stream, Lock& lock);  // waits for all that is enqueued

// Does it once nothing that is enqueued anywhere may still use what it takes away: cudaFree() waits for the device, and
// a stand-in whose caller may hold what the device's work needs (Python's lock) leaves it for later.
void when_idle(std::function<void()> action);

// For calls that a thread must not make while it records: ends the recording.
int unsafe_call();

void lose(int status);
void forget_kernels();

// Where the host finds a device address; nullptr where that is no living memory of the device.
char* contents(const void* address, size_t bytes);
bool is_device(const void* address);
void limit_memory(size_t bytes);

}  // namespace fake
