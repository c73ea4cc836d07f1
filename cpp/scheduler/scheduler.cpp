#include "scheduler/scheduler.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace omni2 {
namespace {

thread_local const Scheduler* running_for = nullptr;

// Marks the thread as running for a scheduler: it is one of its own, or a runtime's while it hands out a notice.
class Mark {
public:
    explicit Mark(const Scheduler* scheduler) : before_(std::exchange(running_for, scheduler)) {}
    ~Mark() { running_for = before_; }
    Mark(const Mark&) = delete;
    Mark& operator=(const Mark&) = delete;

private:
    const Scheduler* before_;
};

std::vector<StageShape> shapes(const std::vector<Scheduler::Stage>& stages) {
    std::vector<StageShape> result;
    for (const auto& stage : stages) result.push_back(stage.shape);
    return result;
}

constexpr double kLongestWait = 1e9;  // seconds: some thirty years, for which a clock of nanoseconds has room

std::chrono::nanoseconds nanoseconds(double seconds) {
    return std::chrono::nanoseconds(static_cast<int64_t>(std::ceil(std::min(seconds, kLongestWait) * 1e9)));
}

}  // namespace

Scheduler::Scheduler(std::vector<Stage> stages, std::shared_ptr<Runtime> runtime, size_t width, Order order)
    : origin_(std::chrono::steady_clock::now()), runtime_(std::move(runtime)), core_(shapes(stages), width, order) {
    for (Stage& stage : stages) {
        Line line;
        line.stream = runtime_->stream(stage.shape.priority);
        line.stage = std::move(stage);
        lines_.push_back(std::move(line));
    }
    dispatcher_ = std::thread([this] { dispatch(); });
}

Scheduler::~Scheduler() { shut_down(); }

bool Scheduler::runs() const { return running_for == this; }

double Scheduler::now() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - origin_).count();
}

SessionId Scheduler::open(Failed failed, double run_ahead) {
    const Lock lock(mutex_);
    return core_.open(std::move(failed), run_ahead);
}

TaskId Scheduler::submit(SessionId session, size_t stage, Payload payload, const std::vector<TaskId>& after,
                         int64_t key) {
    Lock lock(mutex_);
    const TaskId task = core_.submit(session, stage, std::move(payload), after, key);
    settle(lock);
    return task;
}

void Scheduler::begin(SessionId session) {
    Lock lock(mutex_);
    core_.begin(session);
    settle(lock);
}

void Scheduler::delivered(SessionId session, double seconds) {
    Lock lock(mutex_);
    core_.delivered(session, seconds, now());
    settle(lock);
}

void Scheduler::finish(SessionId session) {
    Lock lock(mutex_);
    core_.finish(session);
    settle(lock);
}

void Scheduler::hold(SessionId session, bool held) {
    Lock lock(mutex_);
    core_.hold(session, held);
    settle(lock);
}

void Scheduler::cancel(SessionId session) {
    Lock lock(mutex_);
    core_.cancel(session);
    settle(lock);
}

void Scheduler::revive(SessionId session) {
    Lock lock(mutex_);
    core_.revive(session);
    settle(lock);
}

void Scheduler::close(SessionId session) {
    Lock lock(mutex_);
    core_.close(session);
    settle(lock);
}

double Scheduler::lead(SessionId session) const {
    const Lock lock(mutex_);
    return core_.lead(session, now());
}

Counts Scheduler::counts() const {
    const Lock lock(mutex_);
    return core_.counts();
}

bool Scheduler::wanted(size_t stage) const {
    const Lock lock(mutex_);
    return core_.wanted(stage, now());
}

bool Scheduler::drained(SessionId session, double timeout) {
    if (std::isnan(timeout)) throw std::invalid_argument("timeout must be a number of seconds");
    if (timeout > 0.0 && runs()) throw SchedulerError("a task cannot wait for a session — wait on another thread");
    Lock lock(mutex_);
    const auto done = [&] { return core_.drained(session); };
    if (timeout <= 0.0) return done();
    if (timeout < kLongestWait) return drained_.wait_for(lock, nanoseconds(timeout), done);
    drained_.wait(lock, done);
    return true;
}

void Scheduler::stop() {
    Lock lock(mutex_);
    core_.shut_down();
    settle(lock);
}

void Scheduler::shut_down() {
    if (runs()) throw SchedulerError("a task cannot shut its scheduler down — do so on another thread");
    stop();
    const std::lock_guard<std::mutex> lock(joining_);
    if (!dispatcher_.joinable()) return;
    dispatcher_.join();
    for (Line& line : lines_) line.stream.reset();  // waits for its last call to return
    for (Line& line : lines_) line.stage.function = nullptr;
}

void Scheduler::orphan() {
    Core closed = core_.closed_twin();
    new (&mutex_) std::mutex;
    new (&joining_) std::mutex;
    new (&drained_) std::condition_variable;
    new (&work_) std::condition_variable;
    new (&dispatcher_) std::thread;
    new (&pending_) Stages;
    new (&core_) Core(std::move(closed));
    asleep_ = false;
}

// After every change of the core, with the lock, which it releases: starts what may start now, tells who waits for a
// drained session, and destroys what is no longer needed.
void Scheduler::settle(Lock& lock) {
    const Stages mine = advance();
    const std::vector<Payload> discarded = core_.discarded();
    if (core_.any_drained()) drained_.notify_all();
    lock.unlock();
    enqueue(mine);
}

// Starts what may start now: the stages returned are the caller's to enqueue, the others the dispatcher's.
Scheduler::Stages Scheduler::advance() {
    Stages mine;
    const double time = now();
    for (const size_t stage : core_.start(time)) {
        const bool own = runs() && !lines_[stage].stage.launches;
        (own ? mine : pending_).push_back(stage);
    }
    const bool ended = core_.closed() && core_.idle();
    if (asleep_ && (!pending_.empty() || ended || core_.wake(time) < wakes_at_)) {
        asleep_ = false;
        work_.notify_one();
    }
    return mine;
}

void Scheduler::dispatch() {
    const Mark mark(this);
    Lock lock(mutex_);
    for (;;) {
        Stages stages = advance();
        stages.insert(stages.end(), pending_.begin(), pending_.end());
        pending_.clear();
        if (!stages.empty()) {
            lock.unlock();
            enqueue(stages);
            lock.lock();
            continue;
        }
        if (core_.closed() && core_.idle()) return;
        asleep_ = true;
        wakes_at_ = core_.wake(now());
        const auto woken = [this] { return !asleep_; };
        if (wakes_at_ < kNever)
            work_.wait_until(lock, origin_ + nanoseconds(wakes_at_), woken);
        else
            work_.wait(lock, woken);
        asleep_ = false;
    }
}

// A call that does not launch is a notice on its stream: notices always come, even after a device is lost, on threads
// that may use the runtime, as CUDA's own host functions may not.
void Scheduler::enqueue(const Stages& stages) {
    for (const size_t stage : stages) {
        Line& line = lines_[stage];
        if (line.stage.launches)
            launch(stage);
        else
            runtime_->notify(*line.stream, [this, stage](const std::exception_ptr& lost) { serve(stage, lost); });
    }
}

void Scheduler::launch(size_t stage) {
    lines_[stage].outcome = perform(stage);
    runtime_->notify(*lines_[stage].stream, [this, stage](const std::exception_ptr& error) {
        const Mark mark(this);
        Outcome outcome = std::exchange(lines_[stage].outcome, {});
        if (!outcome.failure) outcome.failure = error;
        complete(stage, std::move(outcome));
    });
}

// This call and those of the stage that may follow at once.
void Scheduler::serve(size_t stage, const std::exception_ptr& lost) {
    const Mark mark(this);
    bool again = complete(stage, lost ? Outcome{lost, {}} : perform(stage));
    while (again) again = complete(stage, perform(stage));
}

std::vector<Payload>& Scheduler::admit(size_t stage) {
    Lock lock(mutex_);
    lines_[stage].payloads = core_.admit(stage);
    settle(lock);
    return lines_[stage].payloads;
}

Outcome Scheduler::perform(size_t stage) {
    Line& line = lines_[stage];
    const Admit begin = [this, stage]() -> std::vector<Payload>& { return admit(stage); };
    return outcome_of([&] { return line.stage.function(begin, *line.stream); });
}

// Ends a call. True if the stage's next one is the caller's to make, on this thread.
bool Scheduler::complete(size_t stage, Outcome outcome) {
    lines_[stage].payloads.clear();  // who waits for a drained session finds its payloads gone
    Lock lock(mutex_);
    const std::vector<Failure> failures = core_.complete(stage, outcome);
    Stages mine = advance();
    std::vector<Payload> discarded = core_.discarded();
    if (core_.any_drained()) drained_.notify_all();
    lock.unlock();
    const auto next = std::find(mine.begin(), mine.end(), stage);
    const bool again = next != mine.end();
    if (again) mine.erase(next);
    enqueue(mine);
    discarded.clear();
    report(failures);
    return again;
}

void Scheduler::report(const std::vector<Failure>& failures) {
    for (const Failure& failure : failures) {
        (*failure.failed)(failure.error);
        Lock lock(mutex_);
        core_.reported(failure.session);
        settle(lock);
    }
}

}  // namespace omni2
