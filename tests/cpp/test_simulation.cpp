// The virtual clock around the scheduler's decisions. What it is used for is tested from Python.
#include "scheduler/simulation.h"

#include <algorithm>
#include <random>

#include "check.h"
#include "sessions.h"

namespace omni2::test {
namespace {

Payload payload(double seconds) { return std::make_shared<double>(seconds); }

double seconds_of(size_t, const std::vector<Payload>& payloads) {
    double longest = 0.0;
    for (const Payload& payload : payloads) longest = std::max(longest, *static_cast<const double*>(payload.get()));
    return longest;
}

Simulation::Stage plain(size_t max_batch = 1) {
    return {{max_batch, 0}, [](const std::vector<Payload>&) { return Errors{}; }};
}

TEST("calls take the time the model says") {
    Simulation simulation({plain(), plain()}, seconds_of, 2, Order::kDeadline);
    Sessions<Simulation> sessions{simulation};
    const SessionId a = sessions.open();
    const TaskId first = sessions.submit(a, 0, payload(2.0));
    sessions.submit(a, 1, payload(3.0), {first});
    sessions.submit(a, 0, payload(1.0));
    simulation.run(2.5);
    CHECK_EQUAL(simulation.now(), 2.5);
    CHECK_EQUAL(simulation.trace().size(), size_t{3});
    simulation.run();
    CHECK_EQUAL(simulation.now(), 5.0);
    CHECK(sessions.drained(a));
}

TEST("actions of one time are done in the order in which they were added, before anything starts") {
    std::vector<int> order;
    Simulation simulation({plain(8)}, seconds_of, 1, Order::kDeadline);
    Sessions<Simulation> sessions{simulation};
    for (int i = 0; i < 5; ++i)
        simulation.at(1.0, [&, i] {
            order.push_back(i);
            sessions.submit(sessions.open(), 0, payload(1.0));
        });
    simulation.run();
    CHECK_EQUAL(order, (std::vector<int>{0, 1, 2, 3, 4}));
    CHECK_EQUAL(simulation.trace().size(), size_t{1});
    CHECK_EQUAL(simulation.trace()[0].sessions.size(), size_t{5});
}

TEST("random sessions come, fail, are cancelled and go: everything ends, and no payload is left") {
    for (uint64_t seed = 0; seed < 50; ++seed) {
        std::mt19937_64 random(seed);
        const auto pick = [&](int high) { return std::uniform_int_distribution<int>(0, high)(random); };
        const auto alive = std::make_shared<double>(0.25);
        int failures = 0;
        auto failing = plain(3);
        failing.function = [&](const std::vector<Payload>&) -> Errors {
            if (pick(9) == 0) throw std::runtime_error("broken");
            return {};
        };
        Simulation simulation({failing, plain(2)}, seconds_of, 2, Order::kDeadline);
        Sessions<Simulation> sessions{simulation};
        for (int i = 0; i < 30; ++i)
            simulation.at(0.1 * pick(100), [&, turn = pick(20)] {
                const SessionId session = sessions.open([&](std::exception_ptr) { ++failures; }, 0.5);
                sessions.begin(session);
                for (size_t task = 0; task < 10; ++task)
                    sessions.submit(session, task % 2, alive);
                sessions.delivered(session, 1.0);
                simulation.at(simulation.now() + 0.1 * turn, [&, session] { sessions.close(session); });
            });
        simulation.run();
        CHECK_EQUAL(sessions.counts().sessions, size_t{0});
        CHECK_EQUAL(alive.use_count(), long{1});
    }
}

TEST("a simulation whose model throws is over") {
    Simulation simulation({plain()}, [](size_t, const std::vector<Payload>&) { return -1.0; }, 1, Order::kDeadline);
    Sessions<Simulation> sessions{simulation};
    sessions.submit(sessions.open(), 0, payload(0.0));
    CHECK_THROWS(std::invalid_argument, simulation.run());
    CHECK_THROWS(SchedulerError, simulation.run());
    simulation.shut_down();
}

}  // namespace
}  // namespace omni2::test
