#include "scheduler/scheduler.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace omni2 {
namespace {

thread_local const Scheduler* running_for = nullptr;  // the scheduler whose thread this is

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

Scheduler::Scheduler(std::vector<Stage> stages, size_t width, Order order)
    : origin_(std::chrono::steady_clock::now()), core_(shapes(stages), width, order), workers_(stages.size()) {
    for (size_t i = 0; i < stages.size(); ++i) workers_[i].function = std::move(stages[i].function);
    try {
        for (size_t i = 0; i < stages.size(); ++i) workers_[i].thread = std::thread([this, i] { work(i); });
        time_keeper_ = std::thread([this] { keep_time(); });
    } catch (...) {  // the system has no more threads: end those that have begun
        shut_down();
        throw;
    }
}

Scheduler::~Scheduler() { shut_down(); }

bool Scheduler::runs() const { return running_for == this; }

double Scheduler::now() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - origin_).count();
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
    change([](Core& core, double) { core.shut_down(); });
}

void Scheduler::shut_down() {
    if (runs()) throw SchedulerError("a task cannot shut its scheduler down — do so on another thread");
    stop();
    const std::lock_guard<std::mutex> lock(joining_);
    for (Worker& worker : workers_)
        if (worker.thread.joinable()) worker.thread.join();
    if (time_keeper_.joinable()) time_keeper_.join();
    for (Worker& worker : workers_) worker.function = nullptr;
}

void Scheduler::orphan() {
    Core closed = core_.closed_twin();
    new (&mutex_) std::mutex;
    new (&joining_) std::mutex;
    new (&drained_) std::condition_variable;
    new (&time_) std::condition_variable;
    new (&time_keeper_) std::thread;
    new (&workers_) std::vector<Worker>;
    new (&core_) Core(std::move(closed));
}

void Scheduler::work(size_t stage) {
    running_for = this;
    while (next_call(workers_[stage])) call(stage);
}

// Waits for the stage's next call; false: there will be none.
bool Scheduler::next_call(Worker& worker) {
    Lock lock(mutex_);
    worker.signal.wait(lock, [&] { return worker.go || ended(); });
    return std::exchange(worker.go, false);
}

void Scheduler::call(size_t stage) {
    Worker& worker = workers_[stage];
    const TakePayloads take_payloads = [this, stage]() -> std::vector<Payload>& {
        change([&](Core& core, double) { workers_[stage].payloads = core.take_payloads(stage); });
        return workers_[stage].payloads;
    };
    const Outcome outcome = outcome_of([&] { return worker.function(take_payloads); });
    worker.payloads.clear();  // a thread that waits for a drained session finds its payloads gone
    std::vector<Failure> failures;
    change([&](Core& core, double) { failures = core.complete(stage, outcome); });
    for (const Failure& failure : failures) {
        (*failure.failed)(failure.error);
        change([&](Core& core, double) { core.reported(failure.session); });
    }
}

// After every change of the core, with the lock, which it releases: starts what may start now, tells the threads that
// wait for a drained session or for the end, and destroys what is no longer needed.
void Scheduler::advance(Lock& lock) {
    const double time = now();
    const std::vector<size_t> started = core_.start(time);
    for (const size_t stage : started) workers_[stage].go = true;
    const double wake = core_.wake(time);
    if (wake < wakes_at_) {
        wakes_at_ = wake;
        time_.notify_one();
    }
    if (core_.any_drained()) drained_.notify_all();
    if (ended()) {
        for (Worker& worker : workers_) worker.signal.notify_one();
        time_.notify_one();
    }
    const std::vector<Payload> discarded = core_.discarded();
    lock.unlock();
    for (const size_t stage : started) workers_[stage].signal.notify_one();  // behind the lock, which a worker takes
}

// Starts what a session's lead has held back, at its moment.
void Scheduler::keep_time() {
    running_for = this;
    Lock lock(mutex_);
    while (!ended()) {
        if (wakes_at_ < kNever)
            time_.wait_until(lock, origin_ + nanoseconds(wakes_at_));
        else
            time_.wait(lock);
        wakes_at_ = kNever;  // until advance() finds the next
        advance(lock);
        lock.lock();
    }
}

}  // namespace omni2
