#include "scheduler/simulation.h"

#include <algorithm>
#include <cmath>

namespace omni2 {
namespace {

std::vector<StageShape> shapes(const std::vector<Simulation::Stage>& stages) {
    std::vector<StageShape> result;
    for (const auto& stage : stages) result.push_back(stage.shape);
    return result;
}

}  // namespace

Simulation::Simulation(std::vector<Stage> stages, Cost cost, size_t width, Order order)
    : core_(shapes(stages), width, order), cost_(std::move(cost)) {
    for (Stage& stage : stages) functions_.push_back(std::move(stage.function));
}

void Simulation::at(double time, std::function<void()> action) {
    if (!(time >= now_ && time < kNever)) throw std::invalid_argument("an action's time must not lie in the past");
    happenings_.push({time, next_number_++, std::move(action)});
}

void Simulation::run(double until) {
    if (std::isnan(until)) throw std::invalid_argument("until must be a time in seconds");
    if (state_ != State::kReady)
        throw SchedulerError("the simulation runs, is shut down or has failed — make a new one");
    state_ = State::kRunning;
    try {
        play(until);
    } catch (...) {
        state_ = State::kOver;
        throw;
    }
    state_ = State::kReady;
}

void Simulation::play(double until) {
    for (;;) {
        start();
        const double next = std::min(happenings_.empty() ? kNever : happenings_.top().time, core_.wake(now_));
        if (next == kNever || next > until) break;
        now_ = next;
        while (!happenings_.empty() && happenings_.top().time <= now_) {
            const std::function<void()> action = happenings_.top().action;
            happenings_.pop();
            action();
        }
    }
    if (until < kNever) now_ = std::max(now_, until);
}

void Simulation::shut_down() {
    if (state_ == State::kRunning) throw SchedulerError("a task cannot shut its scheduler down — do so after run()");
    state_ = State::kOver;
    change([](Core& core, double) { core.shut_down(); });
    std::exchange(happenings_, {});  // destroyed when it is no longer here
    for (Function& function : functions_) function = nullptr;
    cost_ = nullptr;
}

void Simulation::start() {
    for (const size_t stage : core_.start(now_)) {
        std::vector<Payload> payloads = core_.take_payloads(stage);
        const double seconds = cost_(stage, payloads);
        if (!(seconds >= 0.0 && seconds < kNever)) throw std::invalid_argument("a cost must be 0 s or more");
        trace_.push_back({stage, now_, now_ + seconds, core_.sessions(stage)});
        at(now_ + seconds, [this, stage, payloads = std::move(payloads)] { complete(stage, payloads); });
    }
}

void Simulation::complete(size_t stage, const std::vector<Payload>& payloads) {
    const Outcome outcome = outcome_of([&] { return functions_[stage](payloads); });
    for (const Failure& failure : core_.complete(stage, outcome)) {
        (*failure.failed)(failure.error);
        core_.reported(failure.session);
    }
    core_.discarded();  // destroyed here
}

}  // namespace omni2
