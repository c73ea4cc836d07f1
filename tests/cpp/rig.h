// Tests that hold for both runtimes are written once: TEST_ON_BOTH("what holds", rig) { ... rig.runtime ... }
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/runtime.h"

namespace omni2::test {

struct Rig {
    std::shared_ptr<Runtime> runtime;
    std::function<std::unique_ptr<Graph>(std::function<void()>)> graph;  // one that calls the function
    std::function<std::shared_ptr<void>(size_t bytes)> memory;           // of the device
    std::function<std::shared_ptr<void>(size_t bytes)> pinned;           // of the host
};

Rig host_rig();
Rig cuda_rig();  // on the stand-in libcudart, which is reset

inline bool add_on_both(const std::string& name, void (*body)(Rig&)) {
    add("host: " + name, [body] {
        Rig rig = host_rig();
        body(rig);
    });
    return add("cuda: " + name, [body] {
        Rig rig = cuda_rig();
        body(rig);
    });
}

// Gives other threads every chance to do what they must not do yet.
inline void let_run_ahead() {
    for (int i = 0; i < 200; ++i) std::this_thread::yield();
}

// A door that threads wait at until it is opened; a wait that lasts for minutes fails the test instead of hanging.
class Gate {
public:
    void open() {
        const std::lock_guard<std::mutex> lock(mutex_);
        open_ = true;
        changed_.notify_all();
    }

    void wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        if (!changed_.wait_for(lock, std::chrono::seconds(300), [this] { return open_; }))
            throw Failed("a gate stayed closed");
    }

    bool is_open() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return open_;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool open_ = false;
};

// What happened, in order, written by any thread.
class Log {
public:
    void add(std::string entry) {
        const std::lock_guard<std::mutex> lock(mutex_);
        entries_.push_back(std::move(entry));
    }

    std::vector<std::string> entries() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return entries_;
    }

private:
    std::mutex mutex_;
    std::vector<std::string> entries_;
};

// The text of a failure as a notice gets it; "fine" for none.
inline std::string text(const std::exception_ptr& failure) {
    if (!failure) return "fine";
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        return error.what();
    }
}

// Waits until everything enqueued on the stream is done and its notices have come; says what the last one got.
inline std::string settle(Runtime& runtime, Stream& stream) {
    auto gate = std::make_shared<Gate>();
    auto outcome = std::make_shared<std::string>();
    runtime.notify(stream, [=](std::exception_ptr failure) {
        *outcome = text(failure);
        gate->open();
    });
    gate->wait();
    return *outcome;
}

}  // namespace omni2::test

#define TEST_ON_BOTH(name, rig)                                                                                    \
    static void OMNI2_JOIN(test_, __LINE__)(::omni2::test::Rig&);                                                  \
    static const bool OMNI2_JOIN(added_, __LINE__) = ::omni2::test::add_on_both(name, OMNI2_JOIN(test_, __LINE__)); \
    static void OMNI2_JOIN(test_, __LINE__)(::omni2::test::Rig & rig)
