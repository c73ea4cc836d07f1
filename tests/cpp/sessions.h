// Core's methods, called on a Scheduler or a Simulation.
#pragma once

#include <utility>
#include <vector>

#include "scheduler/core.h"

namespace omni2::test {

template <class Machine>
struct Sessions {
    Machine& machine;

    SessionId open(omni2::Failed failed = nullptr, double run_ahead = kNever) {
        SessionId session = 0;
        machine.change([&](Core& core, double) { session = core.open(std::move(failed), run_ahead); });
        return session;
    }
    TaskId submit(SessionId session, size_t stage, Payload payload, const std::vector<TaskId>& after = {}) {
        TaskId task = 0;
        machine.change([&](Core& core, double) { task = core.submit(session, stage, std::move(payload), after, 0); });
        return task;
    }
    void begin(SessionId session) {
        machine.change([&](Core& core, double) { core.begin(session); });
    }
    void delivered(SessionId session, double seconds) {
        machine.change([&](Core& core, double now) { core.delivered(session, seconds, now); });
    }
    void finish(SessionId session) {
        machine.change([&](Core& core, double) { core.finish(session); });
    }
    void hold(SessionId session, bool held) {
        machine.change([&](Core& core, double) { core.hold(session, held); });
    }
    void cancel(SessionId session) {
        machine.change([&](Core& core, double) { core.cancel(session); });
    }
    void revive(SessionId session) {
        machine.change([&](Core& core, double) { core.revive(session); });
    }
    void close(SessionId session) {
        machine.change([&](Core& core, double) { core.close(session); });
    }
    double lead(SessionId session) const {
        return machine.read([&](const Core& core, double now) { return core.lead(session, now); });
    }
    bool drained(SessionId session) const {
        return machine.read([&](const Core& core, double) { return core.drained(session); });
    }
    Counts counts() const {
        return machine.read([](const Core& core, double) { return core.counts(); });
    }
};

}  // namespace omni2::test
