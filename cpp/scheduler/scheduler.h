// The scheduler's threads: Core's decisions, carried out on the streams of a runtime.
//
// Whoever changes something (a submission, a call's end) takes the decision that follows at once, under the lock. On a
// thread of the scheduler's own a stage goes straight on to its next call and hands other stages theirs. What any other
// thread sets off goes through the dispatcher, because that thread may be one that must not use the runtime; so do
// launches, and the calls whose moment has come because a session's lead no longer holds them back. Nothing polls.
//
// Lock order: whoever takes a lock of the caller's (the Python interpreter's) does so before this class's own, which is
// held for moments only and never while functions or destructors of the caller's run.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "runtime/runtime.h"
#include "scheduler/core.h"

namespace omni2 {

class Scheduler {
public:
    // To be called once by a stage's function, when it begins: the payloads of its tasks. Tasks cancelled in the
    // meantime are left out, perhaps all. They are kept until the call is over (where it launches, until its stream has
    // got there), or until the function clears them.
    using Admit = std::function<std::vector<Payload>&()>;

    // Runs the tasks admitted; an exception fails them all. Without `launches` the tasks are done when it returns; it
    // is called in the order of the stage's stream, on a thread of that stream. With it, the dispatcher calls it to
    // enqueue work on the stream, and the tasks are done when the stream has got there. Either may use the runtime.
    using Function = std::function<Errors(const Admit& admit, Stream& stream)>;

    struct Stage {
        StageShape shape;
        Function function;
        bool launches = false;
    };

    Scheduler(std::vector<Stage> stages, std::shared_ptr<Runtime> runtime, size_t width, Order order);

    // Shuts down. Neither may happen on a thread that runs() for this scheduler: it would wait for itself.
    ~Scheduler();

    // As Core's, from any thread. `failed` is called on a thread of the scheduler, once per cancellation by a failure,
    // and must not throw; the session is drained only when it has returned.
    SessionId open(Failed failed, double run_ahead);
    TaskId submit(SessionId session, size_t stage, Payload payload, const std::vector<TaskId>& after, int64_t key);
    void begin(SessionId session);
    void delivered(SessionId session, double seconds);
    void finish(SessionId session);
    void hold(SessionId session, bool held);
    void cancel(SessionId session);
    void revive(SessionId session);
    void close(SessionId session);
    double lead(SessionId session) const;
    Counts counts() const;
    bool wanted(size_t stage) const;

    double now() const;  // seconds since construction

    // Waits until nothing of the session runs or is queued, for `timeout` seconds at most; false: it still does. Throws
    // SchedulerError rather than wait on a thread that runs() for this scheduler.
    bool drained(SessionId session, double timeout);

    // Closes all sessions and refuses new ones; running calls go on.
    void stop();

    // stop(), then waits until all threads have ended, and releases the stages' functions. SchedulerError on a thread
    // that runs() for this scheduler.
    void shut_down();

    // For the child of os.fork(), which has none of these threads, and where the mutex may be locked for ever: from here
    // on the scheduler is one that was shut down. What its threads held stays as it is, and it must not be destroyed.
    void orphan();

    // Whether the calling thread is inside a stage's function, or a `failed`, of this scheduler.
    bool runs() const;

private:
    using Lock = std::unique_lock<std::mutex>;
    using Stages = std::vector<size_t>;

    struct Line {  // a stage, its stream, and the call that runs there
        Stage stage;
        std::unique_ptr<Stream> stream;
        std::vector<Payload> payloads;
        Outcome outcome;  // of launching
    };

    void dispatch();
    void enqueue(const Stages& stages);
    void launch(size_t stage);
    void serve(size_t stage, const std::exception_ptr& lost);
    std::vector<Payload>& admit(size_t stage);
    Outcome perform(size_t stage);
    bool complete(size_t stage, Outcome outcome);
    void report(const std::vector<Failure>& failures);
    Stages advance();
    void settle(Lock& lock);

    const std::chrono::steady_clock::time_point origin_;
    const std::shared_ptr<Runtime> runtime_;
    std::vector<Line> lines_;

    mutable std::mutex mutex_;  // guards what follows
    Core core_;
    Stages pending_;       // whose calls the dispatcher is to enqueue
    bool asleep_ = false;  // the dispatcher, until:
    double wakes_at_ = kNever;
    std::condition_variable work_;     // for the dispatcher
    std::condition_variable drained_;  // for drained()

    std::mutex joining_;
    std::thread dispatcher_;
};

}  // namespace omni2
