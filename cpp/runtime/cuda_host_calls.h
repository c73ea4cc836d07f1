// Host functions on a CUDA stream. CUDA calls a plain pointer, in stream order or, after an error, never; here
// functions are owned until then, and what they throw is kept for the report that comes next behind them.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace omni2 {

// The functions between two reports of a stream; the first that throws ends it.
class Span {
public:
    void fail(uint64_t number, std::exception_ptr failure);
    std::exception_ptr failure_up_to(uint64_t number) const;

private:
    mutable std::mutex mutex_;
    uint64_t number_ = 0;
    std::exception_ptr failure_;
};

// A place in a stream: how many functions of a span are enqueued before it.
struct Place {
    std::shared_ptr<Span> span;
    uint64_t number = 0;

    std::exception_ptr failure() const { return span ? span->failure_up_to(number) : nullptr; }  // once passed
};

class HostCalls {
public:
    // The enqueuing side: the stream's owner calls these one at a time, in the order in which it enqueues on CUDA.
    void add(std::function<void()> function);  // throws what the device was lost with
    void drop_last();                          // the last one added, which CUDA has refused
    Place here() const;
    Place report();  // the same, and what is added from now on belongs to a new span

    // The stream's side: one run_next() for each function added. Skipped in a span that has failed, and without a
    // device.
    void run_next();

    bool is_this_thread() const;  // called by a function of this stream

    // The device is lost: waits for the function that is running, and no other ever starts. Says what it was lost with,
    // which is the first error given.
    std::exception_ptr lose_device(std::exception_ptr error);
    std::exception_ptr lost() const;  // nullptr: not lost

private:
    struct Call {
        std::function<void()> function;
        Place place;  // number: its own
    };

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Call> calls_;
    Place here_{std::make_shared<Span>(), 0};
    std::thread::id running_;  // the thread a function runs on
    std::exception_ptr lost_;
};

}  // namespace omni2
