// For tests of threads: a gate to wait at, a log to write to.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "check.h"

namespace omni2::test {

// Gives other threads every chance to do what they must not do yet.
inline void let_run_ahead() {
    for (int i = 0; i < 200; ++i) std::this_thread::yield();
}

// Threads wait at it until it is opened. A wait of minutes fails the test instead of hanging.
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

inline std::string text(const std::exception_ptr& failure) {
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& error) {
        return error.what();
    }
}

}  // namespace omni2::test
