// The scheduler's decisions, one at a time; no threads. Over random task graphs: test_scheduler_random.cpp.
#include <cmath>
#include <random>

#include "check.h"
#include "scheduler/core.h"

namespace omni2::test {
namespace {

using Ids = std::vector<SessionId>;
using Stages = std::vector<size_t>;

Payload payload() { return std::make_shared<int>(0); }

std::exception_ptr error() { return std::make_exception_ptr(std::runtime_error("broken")); }

// A core with what most tests leave as it is.
struct Bench {
    explicit Bench(std::vector<StageShape> stages, size_t width = 100, Order order = Order::kDeadline)
        : core(std::move(stages), width, order) {}

    SessionId open(double run_ahead = kNever) { return core.open(nullptr, run_ahead); }
    TaskId submit(SessionId session, size_t stage, const std::vector<TaskId>& after = {}, int64_t key = 0) {
        return core.submit(session, stage, payload(), after, key);
    }
    void end(size_t stage) {
        core.take_payloads(stage);
        core.complete(stage, {});
    }
    // The sessions served by `stage` from now on, in order, one call at a time until nothing more starts.
    Ids served(size_t stage, double now = 0.0) {
        Ids order;
        for (;;) {
            core.start(now);
            const Ids call = core.sessions(stage);
            if (call.empty()) return order;
            order.insert(order.end(), call.begin(), call.end());
            end(stage);
        }
    }

    Core core;
};

std::vector<StageShape> plain(size_t stages) { return std::vector<StageShape>(stages); }

TEST("a task starts once, when its stage is free") {
    Bench bench(plain(1));
    const SessionId a = bench.open();
    bench.submit(a, 0);
    bench.submit(a, 0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
    CHECK_EQUAL(bench.core.start(0.0), Stages{});
    bench.end(0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
    bench.end(0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{});
    CHECK(bench.core.drained(a));
}

TEST("a call should be preempted by a task that would come before it, or into it") {
    Bench bench({{3, 0}, {1, 0}});
    const SessionId asks = bench.open(), plays = bench.open(1.0), next = bench.open();
    bench.core.begin(plays);
    bench.core.delivered(plays, 10.0, 0.0);
    CHECK(!bench.core.should_preempt(0, 0.0));
    const TaskId running = bench.submit(plays, 0, {}, 7);
    CHECK(bench.core.should_preempt(0, 0.0));  // nothing runs there
    bench.core.start(0.0);
    CHECK(!bench.core.should_preempt(0, 0.0));
    bench.submit(plays, 0, {running}, 7);
    CHECK(!bench.core.should_preempt(0, 0.0));  // it comes after what runs
    bench.submit(next, 0, {}, 8);
    CHECK(!bench.core.should_preempt(0, 0.0));  // it has no deadline, and another key
    bench.submit(next, 1, {}, 8);
    CHECK(!bench.core.should_preempt(0, 0.0));
    bench.submit(asks, 0, {}, 8);
    CHECK(!bench.core.should_preempt(0, 0.0));
    bench.core.begin(asks);
    CHECK(bench.core.should_preempt(0, 0.0));  // a first chunk goes before
    bench.core.hold(asks, true);
    CHECK(!bench.core.should_preempt(0, 0.0));
    bench.core.hold(asks, false);
    bench.core.cancel(asks);
    CHECK(!bench.core.should_preempt(0, 0.0));
    bench.core.cancel(next);
    bench.core.revive(next);
    bench.submit(next, 0, {}, 7);
    CHECK(bench.core.should_preempt(0, 0.0));  // it would join
    CHECK_THROWS(std::invalid_argument, bench.core.should_preempt(2, 0.0));
}

TEST("who would join a full call does not want its stage, nor who is held back by its lead") {
    Bench bench({{1, 0}});
    const SessionId one = bench.open(), other = bench.open(1.0);
    for (const SessionId session : {one, other}) {
        bench.core.begin(session);
        bench.core.delivered(session, session == one ? 1.0 : 5.0, 0.0);
    }
    bench.submit(one, 0);
    bench.core.start(0.0);
    bench.submit(other, 0);
    CHECK(!bench.core.should_preempt(0, 4.5));
    bench.core.delivered(one, 20.0, 0.0);  // now the other one's player is the first to run dry
    CHECK(!bench.core.should_preempt(0, 3.5));
    CHECK(bench.core.should_preempt(0, 4.5));
}

TEST("stages run at the same time, up to the width") {
    for (const size_t width : {1, 2, 3}) {
        Bench bench(plain(3), width);
        const SessionId a = bench.open();
        for (size_t stage = 0; stage < 3; ++stage) bench.submit(a, stage);
        CHECK_EQUAL(bench.core.start(0.0).size(), width);
    }
}

TEST("a task waits for the tasks it depends on, on any stage") {
    Bench bench(plain(3));
    const SessionId a = bench.open();
    const TaskId first = bench.submit(a, 0), second = bench.submit(a, 1);
    bench.submit(a, 2, {first, second, first});
    CHECK_EQUAL(bench.core.start(0.0), (Stages{0, 1}));
    bench.end(1);
    CHECK_EQUAL(bench.core.start(0.0), Stages{});
    bench.end(0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{2});
    bench.end(2);
    bench.submit(a, 2, {first, second});  // both long done
    CHECK_EQUAL(bench.core.start(0.0), Stages{2});
}

TEST("tasks of one session and stage keep their order, even behind one that waits") {
    Bench bench(plain(2));
    const SessionId a = bench.open();
    const TaskId first = bench.submit(a, 1);
    bench.submit(a, 0, {first});
    bench.submit(a, 0);  // could run at once, had it not been submitted later
    CHECK_EQUAL(bench.core.start(0.0), Stages{1});
    bench.end(1);
    CHECK_EQUAL(bench.served(0), (Ids{a, a}));
}

TEST("first chunks go first, by arrival, then the earliest deadline, then the rest by submission") {
    Bench bench(plain(1));
    Ids s;
    for (int i = 0; i < 6; ++i) s.push_back(bench.open());
    for (const SessionId session : s) bench.submit(session, 0);
    for (const SessionId session : {s[4], s[3], s[2], s[1]}) bench.core.begin(session);
    bench.core.delivered(s[4], 5.0, 0.0);
    bench.core.delivered(s[3], 2.0, 0.0);
    CHECK_EQUAL(bench.served(0), (Ids{s[2], s[1], s[3], s[4], s[0], s[5]}));
}

TEST("in order of arrival only submission counts") {
    Bench bench(plain(1), 1, Order::kArrival);
    const SessionId a = bench.open(), b = bench.open();
    bench.submit(b, 0);
    bench.submit(a, 0);
    bench.core.begin(a);
    bench.core.begin(b);
    bench.core.delivered(b, 100.0, 0.0);
    CHECK_EQUAL(bench.served(0), (Ids{b, a}));
}

TEST("among one session's tasks the stage with the lower priority number goes first") {
    Bench bench({{1, 3}, {1, 1}, {1, 2}}, 1);
    const SessionId a = bench.open();
    for (size_t stage = 0; stage < 3; ++stage) bench.submit(a, stage);
    Stages order;
    for (Stages started = bench.core.start(0.0); !started.empty(); started = bench.core.start(0.0)) {
        order.push_back(started.front());
        bench.end(started.front());
    }
    CHECK_EQUAL(order, (Stages{1, 2, 0}));
}

TEST("with a width, another session's deadline counts more than a stage's priority") {
    Bench bench({{1, 1}, {1, 0}}, 1);
    const SessionId a = bench.open(), b = bench.open();
    bench.submit(a, 1);
    bench.submit(b, 0);
    for (const SessionId session : {a, b}) bench.core.begin(session);
    bench.core.delivered(a, 2.0, 0.0);
    bench.core.delivered(b, 1.0, 0.0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
}

TEST("a deadline moves on with the sound, or starts anew where the player ran dry") {
    Bench bench(plain(1));
    const SessionId a = bench.open();
    CHECK_EQUAL(bench.core.lead(a, 1.0), 0.0);
    bench.core.begin(a);
    bench.core.delivered(a, 2.0, 10.0);
    CHECK_EQUAL(bench.core.lead(a, 11.0), 1.0);
    bench.core.delivered(a, 2.0, 11.0);
    CHECK_EQUAL(bench.core.lead(a, 11.0), 3.0);
    CHECK_EQUAL(bench.core.lead(a, 15.0), -1.0);
    bench.core.delivered(a, 0.5, 15.0);
    CHECK_EQUAL(bench.core.lead(a, 15.0), 0.5);
    bench.core.begin(a);
    CHECK_EQUAL(bench.core.lead(a, 15.0), 0.0);
}

TEST("a batch takes one task of each session that has the most urgent one's key, most urgent first") {
    Bench bench({{3, 0}});
    Ids s;
    for (int i = 0; i < 6; ++i) s.push_back(bench.open());
    for (const SessionId session : s) bench.core.begin(session);
    const std::vector<double> leads{5, 1, 4, 3, 2, 6};
    for (size_t i = 0; i < 6; ++i) {
        bench.core.delivered(s[i], leads[i], 0.0);
        const int64_t key = i == 4 ? 7 : 9;
        bench.submit(s[i], 0, {}, key);
        bench.submit(s[i], 0, {}, 9);
    }
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), (Ids{s[1], s[3], s[2]}));  // not s[4], whose key is another
    bench.end(0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), (Ids{s[1], s[3], s[2]}));  // their second tasks: their deadlines have not moved
    bench.end(0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), Ids{s[4]});  // alone with its key
    bench.end(0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), (Ids{s[4], s[0], s[5]}));
}

TEST("a held session starts nothing, and takes no place in a batch") {
    Bench bench({{4, 0}});
    const SessionId a = bench.open(), b = bench.open();
    bench.submit(a, 0);
    bench.submit(b, 0);
    bench.core.hold(a, true);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.sessions(0), Ids{b});
    bench.end(0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{});
    bench.core.hold(a, false);
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
}

TEST("a session too far ahead waits for its moment, unless it is alone") {
    Bench bench(plain(1));
    const SessionId a = bench.open(1.0);
    bench.core.begin(a);
    bench.core.delivered(a, 10.0, 0.0);
    bench.submit(a, 0);
    CHECK_EQUAL(bench.core.wake(0.0), kNever);
    CHECK_EQUAL(bench.served(0), Ids{a});  // alone: as far ahead as it likes

    const SessionId b = bench.open(1.0);
    bench.submit(a, 0);
    bench.core.begin(b);  // in a turn, though it has no task yet
    CHECK_EQUAL(bench.core.start(8.9), Stages{});
    CHECK_EQUAL(bench.core.wake(8.9), 9.0);
    CHECK_EQUAL(bench.core.start(9.0), Stages{0});
    bench.end(0);

    bench.submit(a, 0);
    bench.core.delivered(a, 5.0, 9.0);
    CHECK_EQUAL(bench.core.start(9.0), Stages{});
    CHECK_EQUAL(bench.core.wake(9.0), 14.0);
    bench.core.finish(b);
    CHECK_EQUAL(bench.core.wake(9.0), kNever);
    CHECK_EQUAL(bench.core.start(9.0), Stages{0});
}

TEST("a session with a task that runs or waits is live, in a turn or not") {
    Bench bench(plain(2));
    const SessionId a = bench.open(1.0), b = bench.open();
    bench.core.begin(a);
    bench.core.delivered(a, 10.0, 0.0);
    bench.submit(a, 0);
    bench.submit(b, 1);
    CHECK_EQUAL(bench.core.start(0.0), Stages{1});
    CHECK_EQUAL(bench.core.start(0.0), Stages{});  // b's task runs
    bench.core.hold(b, true);
    bench.submit(b, 1);
    bench.end(1);
    CHECK_EQUAL(bench.core.start(0.0), Stages{});  // b's task is queued
    bench.core.cancel(b);
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
}

TEST("at the time to wake the task starts, in any rounding") {
    std::mt19937_64 random(3);
    std::uniform_real_distribution<double> seconds(0.0, 1e3);
    for (int i = 0; i < 10000; ++i) {
        Bench bench(plain(1));
        const SessionId a = bench.open(seconds(random)), b = bench.open();
        bench.core.begin(a);
        bench.core.begin(b);
        const double now = seconds(random);
        bench.core.delivered(a, 2e3, now);
        bench.submit(a, 0);
        CHECK_EQUAL(bench.core.start(now), Stages{});
        CHECK_EQUAL(bench.core.start(bench.core.wake(now)), Stages{0});
    }
}

TEST("a cancelled session's tasks are dropped, other than one that runs") {
    Bench bench(plain(2));
    const SessionId a = bench.open(), b = bench.open();
    const TaskId first = bench.submit(a, 0);
    bench.submit(a, 0);
    bench.submit(a, 1, {first});
    bench.submit(b, 0);
    bench.core.start(0.0);
    CHECK_EQUAL(bench.core.take_payloads(0).size(), size_t{1});
    bench.core.cancel(a);
    CHECK_EQUAL(bench.core.discarded().size(), size_t{2});
    CHECK(!bench.core.drained(a));
    CHECK_THROWS(SchedulerError, bench.core.revive(a));
    CHECK_THROWS(SessionCancelled, bench.submit(a, 0));
    bench.core.complete(0, {});
    CHECK(bench.core.drained(a));
    CHECK_EQUAL(bench.served(0), Ids{b});
    CHECK_EQUAL(bench.served(1), Ids{});
    CHECK(bench.core.idle());
}

TEST("a call that was cancelled before it began is not admitted, and its stage stays taken until it is over") {
    Bench bench({{2, 0}});
    const SessionId a = bench.open(), b = bench.open(), c = bench.open();
    for (const SessionId session : {a, b, c}) bench.submit(session, 0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
    bench.core.cancel(a);
    CHECK(!bench.core.drained(a));
    CHECK_EQUAL(bench.core.take_payloads(0).size(), size_t{1});
    CHECK(bench.core.drained(a));
    CHECK_EQUAL(bench.core.sessions(0), Ids{b});
    bench.core.complete(0, {});

    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
    bench.core.cancel(c);
    CHECK(bench.core.take_payloads(0).empty());
    bench.submit(b, 0);
    CHECK_EQUAL(bench.core.start(0.0), Stages{});
    bench.core.complete(0, {});
    CHECK_EQUAL(bench.core.start(0.0), Stages{0});
}

TEST("a revived session starts anew: no hold, no deadline, no tasks of before to come after") {
    Bench bench(plain(1));
    const SessionId a = bench.open();
    const TaskId before = bench.submit(a, 0);
    bench.core.begin(a);
    bench.core.delivered(a, 3.0, 0.0);
    bench.core.hold(a, true);
    bench.core.cancel(a);
    bench.core.revive(a);
    CHECK_EQUAL(bench.core.lead(a, 0.0), 0.0);
    CHECK_THROWS(std::invalid_argument, bench.submit(a, 0, {before}));
    bench.submit(a, 0);
    CHECK_EQUAL(bench.served(0), Ids{a});
}

TEST("a task that fails cancels its session, once, and no other") {
    Core core({{4, 0}}, 1, Order::kDeadline);
    const SessionId a = core.open([](std::exception_ptr) {}, kNever), b = core.open(nullptr, kNever);
    const SessionId c = core.open([](std::exception_ptr) {}, kNever);
    for (const SessionId session : {a, a, b, b, c, c}) core.submit(session, 0, payload(), {}, 0);
    core.start(0.0);
    core.take_payloads(0);
    const auto failures = core.complete(0, {nullptr, {error(), error(), nullptr}});
    CHECK_EQUAL(failures.size(), size_t{1});  // nothing reports b's
    CHECK_EQUAL(failures.front().session, a);
    CHECK(!core.drained(a));  // not before its owner has been told
    core.reported(a);
    CHECK(core.drained(a));
    CHECK(core.drained(b));
    CHECK_THROWS(SessionCancelled, core.submit(b, 0, payload(), {}, 0));
    core.start(0.0);
    CHECK_EQUAL(core.sessions(0), Ids{c});
    core.take_payloads(0);
    core.cancel(c);
    CHECK(core.complete(0, {error(), {}}).empty());  // it was given up before
}

TEST("a stage that returns the wrong number of results fails all its tasks") {
    Core core({{4, 0}}, 1, Order::kDeadline);
    for (int i = 0; i < 2; ++i) core.submit(core.open([](std::exception_ptr) {}, kNever), 0, payload(), {}, 0);
    core.start(0.0);
    core.take_payloads(0);
    CHECK_EQUAL(core.complete(0, {nullptr, {nullptr}}).size(), size_t{2});
}

TEST("a closed session is forgotten when it is drained, and is no error but for submit") {
    Bench bench(plain(1));
    const SessionId a = bench.open(), b = bench.open();
    bench.submit(a, 0);
    bench.core.start(0.0);
    bench.core.take_payloads(0);
    for (const SessionId session : {a, b}) bench.core.close(session);
    CHECK_EQUAL(bench.core.counts().sessions, size_t{1});
    CHECK_THROWS(SessionCancelled, bench.core.revive(a));
    bench.core.complete(0, {});
    CHECK_EQUAL(bench.core.counts().sessions, size_t{0});
    for (const SessionId session : {a, b}) {
        bench.core.begin(session);
        bench.core.delivered(session, 1.0, 0.0);
        bench.core.finish(session);
        bench.core.hold(session, true);
        bench.core.cancel(session);
        bench.core.close(session);
        CHECK(bench.core.drained(session));
        CHECK_EQUAL(bench.core.lead(session, 0.0), 0.0);
        CHECK_THROWS(SessionCancelled, bench.submit(session, 0));
    }
    CHECK_THROWS(std::invalid_argument, bench.core.begin(b + 1));
    CHECK_THROWS(std::invalid_argument, bench.core.begin(0));
}

TEST("what makes no sense is refused, and costs the caller no payload") {
    CHECK_THROWS(std::invalid_argument, Core({}, 1, Order::kDeadline));
    CHECK_THROWS(std::invalid_argument, Core(plain(1), 0, Order::kDeadline));
    CHECK_THROWS(std::invalid_argument, Core({{0, 0}}, 1, Order::kDeadline));
    Bench bench(plain(1));
    CHECK_THROWS(std::invalid_argument, bench.open(-1.0));
    CHECK_THROWS(std::invalid_argument, bench.open(std::nan("")));
    const SessionId a = bench.open(), b = bench.open();
    const TaskId other = bench.submit(b, 0);
    CHECK_THROWS(std::invalid_argument, bench.submit(a, 1));
    CHECK_THROWS(std::invalid_argument, bench.submit(a, 0, {other}));
    CHECK_THROWS(std::invalid_argument, bench.submit(a, 0, {other + 1}));
    CHECK_THROWS(std::invalid_argument, bench.core.delivered(a, -1.0, 0.0));
    CHECK_THROWS(std::invalid_argument, bench.core.delivered(a, kNever, 0.0));
    Payload kept = payload();
    bench.core.cancel(a);
    CHECK_THROWS(SessionCancelled, bench.core.submit(a, 0, std::move(kept), {}, 0));
    CHECK(kept != nullptr);
    bench.core.shut_down();
    CHECK_THROWS(SchedulerClosed, bench.core.submit(b, 0, std::move(kept), {}, 0));
    CHECK_THROWS(SchedulerClosed, bench.open());
    CHECK(kept != nullptr);
    CHECK_EQUAL(bench.core.counts().sessions, size_t{0});
}

TEST("64 sessions with 1000 tasks queued each are served in order, and each payload is given back") {
    Bench bench({{1, 0}, {1, 0}}, 2);
    Ids sessions;
    for (int i = 0; i < 64; ++i) sessions.push_back(bench.open());
    for (int i = 0; i < 1000; ++i)
        for (const SessionId session : sessions) bench.submit(session, static_cast<size_t>(i % 2));
    size_t done = 0;
    for (Stages started = bench.core.start(0.0); !started.empty(); started = bench.core.start(0.0))
        for (const size_t stage : started) {
            bench.end(stage);
            ++done;
            bench.core.discarded();
        }
    CHECK_EQUAL(done, size_t{64000});
    CHECK(bench.core.idle());
}

}  // namespace
}  // namespace omni2::test
