#include "runtime/cuda_notices.h"

#include <utility>

#include "runtime/cuda_stream.h"

namespace omni2 {

Notices::Notices(Api api, HostCalls& calls) : api_(std::move(api)), calls_(calls), thread_([this] { run(); }) {}

Notices::~Notices() {
    if (thread_.joinable()) close();
}

void Notices::close() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        closing_ = true;
        changed_.notify_one();
    }
    thread_.join();
}

void Notices::add(CUstream_st* stream, Place place, Notice notice) {
    Waiting waiting{owned<CUevent_st>(api_, nullptr), nullptr, std::move(place), std::move(notice)};
    try {
        waiting.event = spare_event();
        OMNI2_CUDA(*api_, cudaEventRecord, waiting.event.get(), stream);
    } catch (const RuntimeFailure&) {
        waiting.refusal = std::current_exception();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(waiting));
    changed_.notify_one();
}

void Notices::run() noexcept {
    while (hand_out_next()) {
    }
}

bool Notices::hand_out_next() {
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

std::exception_ptr Notices::wait_for(CUevent_st* event) const {
    const CudaStatus status = api_->cudaEventSynchronize(event);
    return status == kCudaSuccess ? calls_.lost() : device_error(*api_, "work on a stream", status);
}

Handle<CUevent_st> Notices::spare_event() {
    std::unique_lock<std::mutex> lock(mutex_);
    if (spare_.empty()) {
        lock.unlock();
        return create_event(api_, kCudaEventDisableTiming);
    }
    Handle<CUevent_st> event = std::move(spare_.back());
    spare_.pop_back();
    return event;
}

}  // namespace omni2
