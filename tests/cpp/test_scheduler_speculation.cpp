// Speculation: work on turns that may never be asked for comes last but for sessions with spare lead, and delays others
// by one call at most.
#include <algorithm>
#include <map>
#include <random>

#include "check.h"
#include "scheduler/core.h"
#include "scheduler/simulation.h"
#include "sessions.h"

namespace omni2::test {
namespace {

using Ids = std::vector<SessionId>;
using Stages = std::vector<size_t>;

Payload payload() { return std::make_shared<int>(0); }

struct Bench {
    explicit Bench(std::vector<StageShape> stages, size_t width = 100, Order order = Order::kDeadline)
        : core(std::move(stages), width, order) {}

    SessionId open(double run_ahead = kNever) { return core.open(nullptr, run_ahead); }
    SessionId speculating() {
        const SessionId session = open();
        core.speculate(session);
        return session;
    }
    TaskId submit(SessionId session, size_t stage, int64_t key = 0) {
        return core.submit(session, stage, payload(), {}, key);
    }
    void end(size_t stage) {
        core.take_payloads(stage);
        core.complete(stage, {});
    }

    Core core;
};

TEST("a speculative task starts where nothing else could, in either order") {
    for (const Order order : {Order::kDeadline, Order::kArrival}) {
        Bench bench({{1, 0}}, 1, order);
        const SessionId guess = bench.speculating(), turn = bench.open(), idle = bench.open();
        bench.submit(guess, 0);
        bench.submit(guess, 0);
        bench.submit(idle, 0);
        bench.core.begin(turn);
        bench.submit(turn, 0);
        Ids served;
        while (!bench.core.start(0.0).empty()) {
            served.push_back(bench.core.sessions(0).front());
            bench.end(0);
        }
        const bool arrival = order == Order::kArrival;
        CHECK_EQUAL(served, (arrival ? Ids{idle, turn, guess, guess} : Ids{turn, idle, guess, guess}));
        CHECK_EQUAL(bench.core.speculation().calls, size_t{2});
        CHECK_EQUAL(bench.core.speculation().delayed, size_t{0});
    }
}

TEST("none starts at a free stage while a task of another session waits for its own") {
    Bench bench({{1, 0}, {1, 0}});
    const SessionId one = bench.open(), other = bench.open(), guess = bench.speculating();
    bench.submit(one, 0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
    bench.submit(other, 0);
    bench.submit(guess, 1);
    CHECK_EQUAL(bench.core.start(0.0), Stages{});
    bench.core.hold(other, true);  // it may not start, and so does not wait
    CHECK_EQUAL(bench.core.start(0.0), Stages{1});
    bench.end(1);
    bench.core.hold(other, false);
    bench.submit(guess, 1);
    CHECK_EQUAL(bench.core.start(0.0), Stages{});
    bench.end(0);
    CHECK_EQUAL(bench.core.start(0.0), (Stages{0, 1}));
    CHECK_EQUAL(bench.core.speculation().delayed, size_t{0});
}

TEST("one that runs is waited for, at its stage or where the width is full, and none begins meanwhile") {
    for (const bool same_stage : {true, false}) {
        Bench bench({{1, 0}, {1, 0}, {1, 0}}, same_stage ? 3 : 2);
        const SessionId guess = bench.speculating(), other = bench.speculating(), turn = bench.open();
        bench.submit(guess, 0);
        bench.submit(other, 1);
        bench.submit(guess, 0);
        bench.submit(other, 1);
        CHECK_EQUAL(bench.core.start(0.0), (Stages{0, 1}));
        bench.core.begin(turn);
        bench.submit(turn, same_stage ? 0 : 2);
        CHECK_EQUAL(bench.core.start(0.0), Stages{});
        CHECK_EQUAL(bench.core.speculation().delayed, size_t{1});
        if (same_stage) {
            bench.end(1);
            CHECK_EQUAL(bench.core.start(0.0), Stages{});  // it would have to be waited for next
        }
        bench.end(0);
        const std::vector<size_t> started = bench.core.start(0.0);
        CHECK_EQUAL(bench.core.sessions(same_stage ? 0 : 2), Ids{turn});
        CHECK_EQUAL(started.front(), size_t{same_stage ? 0u : 2u});
        CHECK_EQUAL(bench.core.speculation().longest, size_t{1});
    }
}

TEST("a call is speculative or not, and no call is cut for one that is") {
    Bench bench({{4, 0}});
    const SessionId guess = bench.speculating(), other = bench.speculating(), turn = bench.open(), more = bench.open();
    bench.submit(guess, 0, 7);
    bench.submit(other, 0, 7);
    bench.submit(turn, 0, 7);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), Ids{turn});
    CHECK(!bench.core.should_preempt(0, 0.0));
    bench.end(0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), (Ids{guess, other}));
    CHECK(!bench.core.should_preempt(0, 0.0));
    bench.core.begin(more);
    bench.core.delivered(more, kSpareLead + 1.0, 0.0);
    bench.submit(more, 0, 7);
    CHECK(!bench.core.should_preempt(0, 0.0));  // it comes after speculation, as long as its lead is spare
    CHECK(bench.core.should_preempt(0, 1.5));
}

TEST("those that speculate come in the order in which they began to, without sound first") {
    Bench bench({{1, 0}}, 1);
    const SessionId first = bench.speculating(), second = bench.speculating(), third = bench.speculating();
    for (const SessionId session : {third, second, first, first}) bench.submit(session, 0);
    Ids served;
    for (int i = 0; i < 4; ++i) {
        bench.core.start(0.0);
        served.push_back(bench.core.sessions(0).front());
        bench.core.delivered(served.back(), 0.1, 0.0);
        bench.end(0);
    }
    CHECK_EQUAL(served, (Ids{first, second, third, first}));
    bench.core.begin(second);
    bench.submit(third, 0);
    bench.submit(second, 0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), Ids{second});
    CHECK_EQUAL(bench.core.lead(second, 0.0), 0.0);  // what was kept is handed over when the turn is asked for
}

TEST("speculation makes no session rest for it, and rests for no session's lead") {
    Bench bench({{1, 0}, {1, 0}});
    const SessionId ahead = bench.open(1.0), guess = bench.speculating();
    bench.core.begin(ahead);
    bench.core.delivered(ahead, 10.0, 0.0);
    bench.submit(guess, 1);
    bench.submit(ahead, 0);
    CHECK_EQUAL(bench.core.start(0.0), (Stages{1, 0}));  // alone, but for the other's speculation
    CHECK_EQUAL(bench.core.wake(0.0), kNever);
}

TEST("a session with spare lead gives way to it where no other waits, and waits for none once the lead is not spare") {
    for (const Order order : {Order::kDeadline, Order::kArrival}) {
        Bench bench({{1, 0}}, 1, order);
        const SessionId ahead = bench.open(), idle = bench.open(), guess = bench.speculating();
        bench.core.begin(ahead);
        bench.core.delivered(ahead, kSpareLead + 2.0, 0.0);  // spare up to 2.0
        for (int i = 0; i < 4; ++i) bench.submit(ahead, 0);
        for (int i = 0; i < 3; ++i) bench.submit(guess, 0);
        bench.submit(idle, 0);
        Ids served;
        for (const double now : {0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5}) {
            if (now == 0.5) bench.core.hold(idle, true);
            if (now == 1.5) bench.core.hold(idle, false);
            bench.core.start(now);
            served.push_back(bench.core.sessions(0).front());
            bench.end(0);
        }
        const bool arrival = order == Order::kArrival;
        CHECK_EQUAL(served, (arrival ? Ids{ahead, ahead, ahead, ahead, idle, guess, guess, guess}
                                     : Ids{ahead, guess, guess, ahead, ahead, ahead, idle, guess}));
        CHECK_EQUAL(bench.core.speculation().delayed, size_t{0});
    }
}

TEST("a turn that is asked for after all has its place from then on") {
    Bench bench({{1, 0}}, 1);
    const SessionId guess = bench.speculating(), turn = bench.open();
    bench.core.begin(turn);
    bench.submit(guess, 0);
    bench.submit(turn, 0);
    bench.core.begin(guess);  // behind the other
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), Ids{turn});
    bench.core.delivered(turn, 1.0, 0.0);
    bench.end(0);
    bench.submit(turn, 0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), Ids{guess});
    CHECK_EQUAL(bench.core.speculation().calls, size_t{0});
}

TEST("one that is taken back can begin a turn like any other") {
    Bench bench({{1, 0}});
    const SessionId guess = bench.speculating();
    bench.submit(guess, 0);
    bench.submit(guess, 0);
    bench.core.start(0.0);
    bench.core.cancel(guess);
    bench.end(0);
    CHECK(bench.core.drained(guess));
    bench.core.revive(guess);
    const SessionId other = bench.speculating();
    bench.submit(other, 0);
    bench.submit(guess, 0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), Ids{guess});
}

// A load on the virtual clock; what became of each task that was not speculative.
class RandomLoad {
public:
    explicit RandomLoad(uint64_t seed)
        : random_(seed),
          stages_(pick(1, 4)),
          order_(pick(0, 1) ? Order::kDeadline : Order::kArrival),
          simulation_(
              functions(), [this](size_t, const std::vector<Payload>& tasks) { return cost(tasks); }, pick(1, stages_),
              order_) {}

    void play() {
        for (size_t i = pick(2, 6); i > 0; --i) {
            const SessionId session = sessions_.open();
            const bool guess = pick(0, 1), spare = !guess && pick(0, 2) == 0;
            guess_[session] = guess;
            spare_[session] = spare && order_ == Order::kDeadline;
            if (spare)
                sessions_.machine.change([&](Core& core, double now) {
                    core.begin(session);
                    core.delivered(session, 1e6, now);
                });
            for (size_t task = pick(1, 12); task > 0; --task) {
                const size_t stage = pick(0, stages_ - 1);
                simulation_.at(0.1 * static_cast<double>(pick(0, 40)), [this, session, stage, guess] {
                    if (guess) sessions_.machine.change([&](Core& core, double) { core.speculate(session); });
                    sessions_.submit(session, stage, std::make_shared<double>(simulation_.now()));
                });
            }
        }
        simulation_.run();
        check();
    }

private:
    size_t pick(size_t low, size_t high) { return std::uniform_int_distribution<size_t>(low, high)(random_); }

    std::vector<Simulation::Stage> functions() {
        std::vector<Simulation::Stage> all;
        for (size_t i = 0; i < stages_; ++i)
            all.push_back({{pick(1, 3), 0}, [](const std::vector<Payload>&) { return Errors{}; }});
        return all;
    }

    double cost(const std::vector<Payload>& tasks) {
        for (const Payload& task : tasks) asked_.push_back(*static_cast<const double*>(task.get()));
        return 0.05 * static_cast<double>(pick(1, 30));
    }

    // From the trace alone: no speculative call began while a task of another session without spare lead, submitted
    // before, had not. Tasks of one session and stage keep their order, so the first of them to begin are the first
    // that were submitted.
    void check() const {
        size_t number = 0;
        struct Waited {
            double asked, began;
        };
        std::vector<Waited> others;
        for (const auto& call : simulation_.trace())
            for (const SessionId session : call.sessions) {
                if (!guess_.at(session) && !spare_.at(session)) others.push_back({asked_[number], call.start});
                ++number;
            }
        for (const auto& call : simulation_.trace()) {
            const bool guess = guess_.at(call.sessions.front());
            for (const SessionId session : call.sessions) CHECK_EQUAL(guess_.at(session), guess);  // none is shared
            if (!guess) continue;
            for (const Waited& task : others) CHECK(!(task.asked < call.start && call.start < task.began));
        }
        simulation_.read([](const Core& core, double) {
            CHECK(core.speculation().longest <= 1);
            return 0;
        });
    }

    std::mt19937_64 random_;
    size_t stages_;
    Order order_;
    Simulation simulation_;
    Sessions<Simulation> sessions_{simulation_};
    std::map<SessionId, bool> guess_, spare_;  // whether it speculates; whether its player has spare lead
    std::vector<double> asked_;                // when each task was submitted, in the order in which they began
};

TEST("over random loads no speculative call begins while others wait, and none waits for two") {
    for (uint64_t seed = 0; seed < 500; ++seed) {
        try {
            RandomLoad(seed).play();
        } catch (const Failed& failure) {
            throw Failed("seed " + std::to_string(seed) + ": " + failure.what());
        }
    }
}

}  // namespace
}  // namespace omni2::test
