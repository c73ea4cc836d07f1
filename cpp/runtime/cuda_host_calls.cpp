// Nothing here calls CUDA, and no lock is held while a function runs or is destroyed.
#include "runtime/cuda_host_calls.h"

#include <utility>

namespace omni2 {

void Span::fail(uint64_t number, std::exception_ptr failure) {
    const std::lock_guard<std::mutex> lock(mutex_);
    number_ = number;
    failure_ = std::move(failure);
}

std::exception_ptr Span::failure_up_to(uint64_t number) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return number_ <= number ? failure_ : nullptr;
}

void HostCalls::add(std::function<void()> function) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (lost_) std::rethrow_exception(lost_);
    ++here_.number;
    calls_.push_back({std::move(function), here_});
}

void HostCalls::drop_last() {
    std::unique_lock<std::mutex> lock(mutex_);
    const Call dropped = std::move(calls_.back());
    calls_.pop_back();
    lock.unlock();
}

Place HostCalls::here() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return here_;
}

Place HostCalls::report() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(here_, Place{std::make_shared<Span>(), 0});
}

void HostCalls::run_next() {
    std::unique_lock<std::mutex> lock(mutex_);
    Call call = std::move(calls_.front());
    calls_.pop_front();
    if (lost_ || call.place.failure()) {
        lock.unlock();
        return;
    }
    running_ = std::this_thread::get_id();
    lock.unlock();

    try {
        call.function();
    } catch (...) {
        call.place.span->fail(call.place.number, std::current_exception());
    }
    call.function = nullptr;
    lock.lock();
    running_ = {};
    changed_.notify_all();
}

bool HostCalls::is_this_thread() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return running_ == std::this_thread::get_id();
}

std::exception_ptr HostCalls::lose_device(std::exception_ptr error) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!lost_) lost_ = std::move(error);
    changed_.wait(lock, [this] { return running_ == std::thread::id(); });
    return lost_;
}

std::exception_ptr HostCalls::lost() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return lost_;
}

}  // namespace omni2
