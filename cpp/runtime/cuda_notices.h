// Notices of a CUDA stream, handed out on a thread of their own: CUDA's callbacks may neither use CUDA nor come after
// an error.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/cuda_handles.h"
#include "runtime/cuda_host_calls.h"

namespace omni2 {

// Waits for events one after another and hands out the notice that belongs to each.
class Notices {
public:
    Notices(Api api, HostCalls& calls);
    ~Notices();

    // Returns when all have been handed out, those too that notices have added meanwhile.
    void close();

    // Records an event and hands out `notice` behind it; where the device refuses, the notice gets its error.
    void add(CUstream_st* stream, Place place, Notice notice);

private:
    struct Waiting {
        Handle<CUevent_st> event;
        std::exception_ptr refusal;  // why there is no event to wait for
        Place place;
        Notice notice;
    };

    void run() noexcept;  // a notice must not throw
    bool hand_out_next();
    std::exception_ptr wait_for(CUevent_st* event) const;
    Handle<CUevent_st> spare_event();

    const Api api_;
    HostCalls& calls_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Waiting> queue_;
    std::vector<Handle<CUevent_st>> spare_;
    bool closing_ = false;
    std::thread thread_;  // last: it uses all of the above
};

}  // namespace omni2
