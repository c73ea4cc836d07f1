// The scheduler's threads: Core's decisions, carried out by one worker thread per stage.
//
// The thread that changes something (a submission, the end of a call) takes the decision that follows at once, under
// the lock, and signals the workers whose calls begin. A worker whose own stage goes on makes its next call without
// waiting. One more thread waits for the moments at which a session's lead no longer holds it back. Nothing polls.
//
// Lock order: a thread that takes a lock of the caller's (the Python interpreter's) does so before this class's own,
// which is held for moments only and never while functions or destructors of the caller's run.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "scheduler/core.h"

namespace omni2 {

class Scheduler {
public:
    // To be called once by a stage's function, when it begins: the payloads of its tasks. Tasks cancelled in the
    // meantime are left out, perhaps all. They are kept until the function returns, or clears them.
    using TakePayloads = std::function<std::vector<Payload>&()>;

    // Runs the tasks, on the stage's thread; an exception fails them all. They are done when it returns.
    using Function = std::function<Errors(const TakePayloads& take_payloads)>;

    struct Stage {
        StageShape shape;
        Function function;
    };

    Scheduler(std::vector<Stage> stages, size_t width, Order order);

    // Shuts down. Neither may happen on a thread that runs() for this scheduler: it would wait for itself.
    ~Scheduler();

    // Calls change(core, now) under the lock, and starts what may start then. From any thread. A session's `failed` is
    // called on a thread of the scheduler, once per cancellation by a failure, and must not throw; the session is
    // drained only when it has returned.
    template <class Change>
    void change(Change change) {
        Lock lock(mutex_);
        change(core_, now());
        advance(lock);
    }

    // The result of read(core, now) under the lock. From any thread.
    template <class Read>
    auto read(Read read) const {
        const Lock lock(mutex_);
        return read(core_, now());
    }

    double now() const;  // seconds since construction

    // Waits until nothing of the session runs or is queued, for `timeout` seconds at most; false: it still does. Throws
    // SchedulerError rather than wait on a thread that runs() for this scheduler.
    bool drained(SessionId session, double timeout);

    // Closes all sessions and refuses new ones; running calls go on.
    void stop();

    // stop(), then waits until all threads have ended, and releases the stages' functions. SchedulerError on a thread
    // that runs() for this scheduler.
    void shut_down();

    // For the child of os.fork(), which has none of these threads, and where the mutex may be locked for ever: from
    // here on the scheduler is one that was shut down. What its threads held stays as it is, and it must not be
    // destroyed.
    void orphan();

    // Whether the calling thread is inside a stage's function, or a `failed`, of this scheduler.
    bool runs() const;

private:
    using Lock = std::unique_lock<std::mutex>;

    struct Worker {
        Function function;
        std::vector<Payload> payloads;  // of the call; its own thread's
        bool go = false;                // a call is to be made
        std::condition_variable signal;
        std::thread thread;
    };

    void work(size_t stage);
    bool next_call(Worker& worker);
    void call(size_t stage);
    void keep_time();
    void advance(Lock& lock);
    bool ended() const { return core_.closed() && core_.idle(); }

    const std::chrono::steady_clock::time_point origin_;

    mutable std::mutex mutex_;  // guards what follows
    Core core_;
    std::vector<Worker> workers_;      // by stage
    double wakes_at_ = kNever;         // the time that time_keeper_ waits for
    std::condition_variable time_;     // for time_keeper_
    std::condition_variable drained_;  // for drained()

    std::mutex joining_;
    std::thread time_keeper_;
};

}  // namespace omni2
