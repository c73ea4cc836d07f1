// The scheduler on a virtual clock: Core's decisions, with calls that take the time a model says. One thread, no
// waiting, and the same trace every time.
#pragma once

#include <queue>
#include <tuple>

#include "scheduler/core.h"

namespace omni2 {

class Simulation {
public:
    // The seconds that a call of `stage` takes for these tasks.
    using Cost = std::function<double(size_t stage, const std::vector<Payload>& payloads)>;

    // Called at the virtual time when the call is over; an exception fails all its tasks.
    using Function = std::function<Errors(const std::vector<Payload>& payloads)>;

    struct Stage {
        StageShape shape;
        Function function;
    };

    struct Interval {  // a call, over or still running
        size_t stage;
        double start, stop;
        std::vector<SessionId> sessions;
    };

    Simulation(std::vector<Stage> stages, Cost cost, size_t width, Order order);

    // As the scheduler's, for one thread. A `failed` is called when the call is over.
    template <class Change>
    void change(Change change) {
        change(core_, now_);
        core_.discarded();  // destroyed here
    }
    template <class Read>
    auto read(Read read) const {
        return read(core_, now_);
    }
    void shut_down();  // SchedulerError while it runs
    double now() const { return now_; }

    // Calls action() at a time, which must not lie in the past.
    void at(double time, std::function<void()> action);

    // Runs until nothing more happens, up to and including the time `until`, where a finite one leaves the clock. What
    // an action, a cost or a `failed` throws comes out of it, and the simulation then cannot go on.
    void run(double until = kNever);

    const std::vector<Interval>& trace() const { return trace_; }  // in the order of their starts

private:
    enum class State { kReady, kRunning, kOver };

    struct Happening {
        double time;
        uint64_t number;  // those of one time come in the order in which they were made
        std::function<void()> action;

        bool operator<(const Happening& other) const {  // the soonest is the greatest, for the queue's top
            return std::tie(other.time, other.number) < std::tie(time, number);
        }
    };

    void play(double until);
    void start();
    void complete(size_t stage, const std::vector<Payload>& payloads);

    Core core_;
    std::vector<Function> functions_;
    Cost cost_;
    std::priority_queue<Happening> happenings_;
    std::vector<Interval> trace_;
    uint64_t next_number_ = 0;
    double now_ = 0.0;
    State state_ = State::kReady;
};

}  // namespace omni2
