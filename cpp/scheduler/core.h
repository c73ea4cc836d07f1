// Which task runs next: the scheduler's decisions without its threads. A passive state machine, which is told the time
// and never looks at a clock, so that one set of decisions serves real threads (scheduler.h) and a virtual clock
// (simulation.h).
//
// A session submits tasks to stages. A stage makes one call at a time; a call takes a batch of tasks, each of another
// session, that have one key. Tasks of one session and stage run in the order of their submission, and no task runs
// before those it comes after. Who is first: sessions whose first chunk of sound is not out yet, then the earliest
// playback deadline (the moment the session's player runs dry), then the stage's priority, then submission.
//
// A session may speculate: work on a turn that may never be asked for. Its tasks come before those of sessions whose
// players have more than kSpareLead of sound (not with Order::kArrival), and after all others. None of them starts
// while one of these others waits, and none shares a call with tasks that do not speculate. Those that have no sound
// yet come before those that keep some. So a task whose session has no spare lead waits for one speculative call at
// most, one that ran when it came or when the lead ceased to be spare.
//
// A choice looks at every session that is ready at a free stage, never at the tasks queued behind, and nothing needs to
// be sorted again when a deadline moves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

namespace omni2 {

using SessionId = uint64_t;
using TaskId = uint64_t;  // ascends with submission
using Payload = std::shared_ptr<void>;
using Failed = std::function<void(std::exception_ptr)>;
using Errors = std::vector<std::exception_ptr>;  // of a call's tasks, nullptr where all went well; empty: all went well

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kSpareLead = 1.0;  // seconds: several calls on the slowest machine that keeps up with its players

// A call the scheduler cannot follow in its present state.
struct SchedulerError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct SessionCancelled : SchedulerError {
    using SchedulerError::SchedulerError;
};

struct SchedulerClosed : SchedulerError {
    using SchedulerError::SchedulerError;
};

enum class Order { kDeadline, kArrival };  // kArrival: by submission alone

struct StageShape {
    size_t max_batch = 1;
    int priority = 0;  // lower runs first among a session's tasks: downstream stages first
};

// What came of a call: `failure` concerns all its tasks, `errors` single ones.
struct Outcome {
    std::exception_ptr failure;
    Errors errors;
};

// The outcome of function(), which returns Errors or throws.
template <class Function>
Outcome outcome_of(Function function) {
    try {
        return {nullptr, function()};
    } catch (...) {
        return {std::current_exception(), {}};
    }
}

// A session whose task failed: it is cancelled, and its owner is still to be told.
struct Failure {
    SessionId session;
    std::shared_ptr<Failed> failed;
    std::exception_ptr error;
};

struct Counts {
    size_t sessions, queued, running;
};

// What speculation did to others.
struct Speculation {
    size_t calls = 0;    // begun
    size_t delayed = 0;  // tasks that come before speculation and could have started but for such calls
    size_t longest = 0;  // such calls that one task waited for, one after another, at most
};

// Not thread-safe. Times are seconds on one clock that never goes back. A session that was closed is no error, other
// than for submit; one that was never opened is (std::invalid_argument). Nothing here destroys a payload or a `failed`:
// those no longer needed wait in discarded(), because destroying them may take a lock that our caller must not wait
// for.
class Core {
public:
    // At most `width` calls run at once. With fewer than stages, calls are taken to share processors: beside one for a
    // first chunk none starts.
    Core(std::vector<StageShape> stages, size_t width, Order order);

    // `run_ahead`: a lead in seconds beyond which no task of the session starts while other sessions are live, that is
    // in a turn or with tasks of their own. `failed` may be empty, and is taken only if nothing is thrown.
    SessionId open(Failed&& failed, double run_ahead);

    // Takes the payload only if it does not throw: SchedulerClosed, SessionCancelled (also when closed), or
    // std::invalid_argument. `after`: tasks of this session, submitted since it was opened or revived.
    TaskId submit(SessionId session, size_t stage, Payload&& payload, const std::vector<TaskId>& after, int64_t key);

    void begin(SessionId session);
    void speculate(SessionId session);                              // until it begins a turn, or is revived
    void delivered(SessionId session, double seconds, double now);  // when it speculates: sound that is kept
    void finish(SessionId session);
    void hold(SessionId session, bool held);
    void cancel(SessionId session);
    void revive(SessionId session);  // SchedulerError while tasks run, SessionCancelled when closed
    void close(SessionId session);
    void shut_down();  // closes every session; open and submit then throw SchedulerClosed
    Core closed_twin()
        const;  // a new core of the same stages that is shut down, and where the same sessions are closed

    bool drained(SessionId session) const;  // no task queued or running, no failure still to be reported
    bool idle() const;                      // so for all sessions
    bool closed() const { return closed_; }
    double lead(SessionId session, double now) const;  // until the player runs dry; negative: since; 0 before any sound
    Counts counts() const;
    Speculation speculation() const { return speculation_; }

    // Whether the stage's call should end early: a waiting task would come before the rest of it, or could share it.
    bool should_preempt(size_t stage, double now) const;

    // Starts what may start now, and returns the stages whose calls begin.
    std::vector<size_t> start(double now);

    // When a task that only its session's lead holds back may start; kNever if there is none.
    double wake(double now) const;

    // The payloads of a stage's call that is about to begin, without those whose sessions were cancelled since start().
    std::vector<Payload> take_payloads(size_t stage);
    std::vector<SessionId> sessions(size_t stage) const;  // in the order of the payloads

    // The call is over; errors in the order of the payloads, all of them or none (else every task has failed). Each
    // failure returned asks for one reported().
    std::vector<Failure> complete(size_t stage, const Outcome& outcome);
    void reported(SessionId session);

    std::vector<Payload> discarded() { return std::exchange(discarded_, {}); }
    bool any_drained() { return std::exchange(any_drained_, false); }  // since it was asked last

private:
    struct Session;

    struct Task {
        TaskId id;
        Session* session;
        size_t stage;
        Payload payload;
        int64_t key;
        size_t waits_for = 0;  // tasks it comes after that are not done
        std::vector<TaskId> dependents;
        bool delayed = false;     // by speculative calls, since it could have started
        size_t calls_before = 0;  // speculative calls that had begun by then
    };

    enum class Phase { kIdle, kSpeculating, kFirstChunk, kPlaying };

    struct Session {
        SessionId id;
        std::shared_ptr<Failed> failed;
        double run_ahead;
        TaskId first_task;                      // the oldest that may be named as a dependency
        std::vector<std::deque<Task*>> queues;  // by stage; only their heads may start
        Phase phase = Phase::kIdle;
        uint64_t turn = 0;          // arrival of the turn among all turns
        double deadline = -kNever;  // when the player runs dry
        bool held = false;
        bool cancelled = false;
        bool closing = false;
        bool live = false;
        size_t queued = 0, running = 0, reports = 0;
    };

    struct Stage {
        StageShape shape;
        std::vector<Task*> ready;    // queue heads that wait for no other task; unordered
        bool busy = false;           // from start() to complete(), even if all of the call's tasks were cancelled
        bool speculative = false;    // the call began as such
        std::vector<Task*> running;  // the call
    };

    Session* find(SessionId session);  // nullptr: closed
    const Session* find(SessionId session) const;
    void check_dependencies(const Session& session, const std::vector<TaskId>& after) const;
    void offer_head(Session& session, size_t stage);
    void drop_queued(Session& session);
    void drop_and_cancel(Session& session);
    void retire(Task& task);
    void update(Session& session);

    double eligible_at(const Session& session) const;
    bool eligible(const Task& task, double now) const;
    static bool speculates(const Task& task);
    static bool may_share(const Task& a, const Task& b);  // a call
    bool before(const Task& a, const Task& b) const;
    bool first_chunk_runs_alone() const;
    bool has_spare_lead(const Session& session, double now) const;
    bool others_wait(double now) const;
    void note_delays(double now);
    Task* most_urgent(double now, bool speculative) const;
    std::vector<Task*> batch_of(Task* first, double now) const;
    void begin_call(const std::vector<Task*>& batch);

    std::vector<Stage> stages_;
    const size_t width_;
    const Order order_;
    std::unordered_map<SessionId, Session> sessions_;
    std::unordered_map<TaskId, Task> tasks_;
    std::vector<Payload> discarded_;
    SessionId next_session_ = 1;
    TaskId next_task_ = 1;
    uint64_t next_turn_ = 0;
    size_t calls_ = 0;  // running
    size_t live_ = 0;   // sessions
    size_t queued_ = 0, running_ = 0, reports_ = 0;
    Speculation speculation_;
    bool any_drained_ = false;
    bool closed_ = false;
};

}  // namespace omni2
