// The scheduler's threads.
#include "scheduler/scheduler.h"

#include <atomic>
#include <random>
#include <utility>

#include "check.h"
#include "sessions.h"
#include "threads.h"

namespace omni2::test {
namespace {

constexpr double kSoon = 300.0;  // seconds after which a test is taken to hang

using Body = std::function<void()>;  // a task's payload: what it does

Payload payload(Body body) { return std::make_shared<Body>(std::move(body)); }

Body& body(const Payload& payload) { return *static_cast<Body*>(payload.get()); }

// A stage whose tasks are functions; what one throws fails that one alone.
Scheduler::Stage stage(size_t max_batch = 1) {
    return {{max_batch, 0}, [](const Scheduler::TakePayloads& take_payloads) {
                Errors errors;
                for (const Payload& task : take_payloads())
                    errors.push_back(outcome_of([&] { return body(task)(), Errors{}; }).failure);
                return errors;
            }};
}

std::vector<Scheduler::Stage> stages(size_t count) { return std::vector<Scheduler::Stage>(count, stage()); }

struct Bench {
    explicit Bench(std::vector<Scheduler::Stage> stages, size_t width = 100)
        : scheduler(std::move(stages), width, Order::kDeadline) {}

    TaskId submit(SessionId session, size_t stage, Body body, const std::vector<TaskId>& after = {}) {
        return sessions.submit(session, stage, payload(std::move(body)), after);
    }
    void wait_for(SessionId session) { CHECK(scheduler.drained(session, kSoon)); }

    Scheduler scheduler;
    Sessions<Scheduler> sessions{scheduler};
};

TEST("tasks run after the tasks they depend on, on any stage") {
    Log log;
    Bench bench({stage(), stage(), stage()});
    const SessionId a = bench.sessions.open();
    std::vector<TaskId> before;
    std::vector<std::string> expected;
    for (int i = 0; i < 60; ++i) {
        const std::string name = std::to_string(i);
        before = {bench.submit(a, static_cast<size_t>(i * 7 % 3), [&log, name] { log.add(name); }, before)};
        expected.push_back(name);
    }
    bench.wait_for(a);
    CHECK_EQUAL(log.entries(), expected);
}

TEST("stages overlap") {
    Gate left, right;
    Bench bench({stage(), stage()});
    const SessionId a = bench.sessions.open();
    bench.submit(a, 0, [&] { left.open(), right.wait(); });
    bench.submit(a, 1, [&] { right.open(), left.wait(); });
    bench.wait_for(a);
    CHECK(left.is_open() && right.is_open());
}

TEST("a width of 1 lets one task run at a time, over all stages") {
    std::atomic<int> inside{0}, most{0};
    Bench bench({stage(), stage(), stage()}, 1);
    const SessionId a = bench.sessions.open();
    for (size_t i = 0; i < 60; ++i)
        bench.submit(a, i % 3, [&] {
            most = std::max(most.load(), ++inside);
            let_run_ahead();
            --inside;
        });
    bench.wait_for(a);
    CHECK_EQUAL(most.load(), 1);
}

TEST("tasks submit tasks") {
    std::atomic<int> runs{0};
    Bench bench(stages(2));
    const SessionId a = bench.sessions.open();
    std::function<void()> step = [&] {
        if (++runs < 500) bench.submit(a, static_cast<size_t>(runs % 2), step);
    };
    bench.submit(a, 0, step);
    bench.wait_for(a);
    CHECK_EQUAL(runs.load(), 500);
}

TEST("sessions share calls") {
    Gate gate;
    std::vector<size_t> sizes;
    auto counting = stage(4);
    counting.function = [&, run = counting.function](const Scheduler::TakePayloads& take_payloads) {
        return run([&]() -> std::vector<Payload>& {
            auto& payloads = take_payloads();
            sizes.push_back(payloads.size());
            return payloads;
        });
    };
    std::vector<SessionId> sessions;
    Bench bench({counting});
    for (int i = 0; i < 7; ++i) sessions.push_back(bench.sessions.open());
    bench.submit(sessions[6], 0, [&] { gate.wait(); });
    for (int i = 0; i < 6; ++i) bench.submit(sessions[i], 0, [] {});
    gate.open();
    for (const SessionId session : sessions) bench.wait_for(session);
    CHECK_EQUAL(sizes, (std::vector<size_t>{1, 4, 2}));
}

TEST("a task that fails ends its session, with the error, and no other") {
    Log log;
    Bench bench(stages(2));
    const SessionId a = bench.sessions.open([&](std::exception_ptr error) { log.add(text(error)); });
    const SessionId b = bench.sessions.open();
    std::atomic<int> others{0};
    bench.sessions.hold(a, true);
    bench.submit(a, 0, [] { throw std::runtime_error("broken"); });
    bench.submit(a, 0, [&] { log.add("came after a failure"); });
    bench.sessions.hold(a, false);
    for (size_t i = 0; i < 100; ++i) bench.submit(b, i % 2, [&] { ++others; });
    bench.wait_for(a);
    bench.wait_for(b);
    CHECK_EQUAL(log.entries(), std::vector<std::string>{"broken"});
    CHECK_EQUAL(others.load(), 100);
    CHECK_THROWS(SessionCancelled, bench.submit(a, 0, [] {}));
    bench.sessions.revive(a);
    bench.submit(a, 0, [&] { log.add("revived"); });
    bench.wait_for(a);
    CHECK_EQUAL(log.entries().back(), std::string("revived"));
}

TEST("cancelling drops what is queued and lets what runs finish") {
    Gate started, gate;
    std::atomic<int> runs{0};
    Bench bench(stages(1));
    const SessionId a = bench.sessions.open(), b = bench.sessions.open();
    const auto alive = std::make_shared<int>(0);
    bench.submit(a, 0, [&] { started.open(), gate.wait(), ++runs; });
    for (int i = 0; i < 100; ++i) bench.submit(a, 0, [&, kept = alive] { ++runs; });
    started.wait();
    bench.sessions.cancel(a);
    CHECK_EQUAL(alive.use_count(), long{1});
    CHECK(!bench.scheduler.drained(a, 0.0));
    bench.submit(b, 0, [&] { runs += 10; });
    gate.open();
    bench.wait_for(a);
    bench.wait_for(b);
    CHECK_EQUAL(runs.load(), 11);
}

// One session's tasks follow one another while another's go on; it is cancelled again and again when some of them
// have been entered. When cancel() returns with a task inside, as every other one is made to be, nothing more may be
// entered; in the gap between two, one whose turn it was already may.
TEST("1000 cancellations at random moments: no task starts after one, others go on, nothing is left") {
    std::mt19937_64 random(1);
    std::atomic<int> entered{0}, left{0}, wrong{0};
    std::atomic<bool> over{false};
    const auto alive = std::make_shared<int>(0);
    Bench bench(stages(3));
    const SessionId other = bench.sessions.open();
    std::atomic<int> others{0};
    std::function<void()> step = [&] {
        ++others;
        if (!over) bench.submit(other, 2, step);
    };
    bench.submit(other, 2, step);
    const SessionId a = bench.sessions.open();
    for (int round = 0; round < 1000; ++round) {
        entered = left = 0;
        const int stop_at = std::uniform_int_distribution<int>(1, 8)(random);
        const bool held = round % 2 == 0;
        Gate reached, through;
        if (!held) through.open();
        std::vector<TaskId> before;
        for (size_t i = 0; i < 8; ++i)
            before = {bench.submit(a, i % 2, [&, kept = alive] {
                if (++entered == stop_at) reached.open(), through.wait();
                ++left;
            }, before)};
        reached.wait();
        bench.sessions.cancel(a);
        const int entered_then = entered;
        for (const int served = others; held && others < served + 3;) let_run_ahead();
        through.open();
        CHECK(bench.scheduler.drained(a, kSoon));
        wrong += entered > entered_then + (held ? 0 : 1);
        CHECK_EQUAL(entered.load(), left.load());
        bench.sessions.revive(a);
    }
    over = true;
    bench.wait_for(other);
    CHECK_EQUAL(wrong.load(), 0);
    CHECK_EQUAL(alive.use_count(), long{1});
    CHECK(others > 1000);
    CHECK_EQUAL(bench.sessions.counts().queued, size_t{0});
    CHECK_EQUAL(bench.sessions.counts().running, size_t{0});
}

TEST("a session too far ahead starts again at its moment, by itself") {
    Bench bench(stages(1));
    const SessionId a = bench.sessions.open(nullptr, 0.05), b = bench.sessions.open();
    bench.sessions.begin(a);
    bench.sessions.begin(b);
    for (int round = 0; round < 3; ++round) {  // from the second on, the thread for such moments waits without a time
        bench.sessions.delivered(a, 0.1);
        double started = 0.0;
        const double due = bench.scheduler.now() + bench.sessions.lead(a) - 0.05;
        bench.submit(a, 0, [&] { started = bench.scheduler.now(); });
        bench.wait_for(a);
        CHECK(started >= due);
    }
}

TEST("a moment that comes sooner is not missed for one that was waited for") {
    Bench bench(stages(1));
    const SessionId far = bench.sessions.open(nullptr, 0.0), near = bench.sessions.open(nullptr, 0.0);
    const SessionId other = bench.sessions.open();
    for (const SessionId session : {far, near, other}) bench.sessions.begin(session);
    bench.sessions.delivered(far, 1e6);
    bench.submit(far, 0, [] {});
    bench.sessions.delivered(near, 0.02);
    bench.submit(near, 0, [] {});
    bench.wait_for(near);
    CHECK_EQUAL(bench.sessions.counts().queued, size_t{1});
}

TEST("a wait for a session includes the report of a failure to its owner") {
    Gate gate;
    std::atomic<bool> told{false};
    Bench bench(stages(1));
    const SessionId a = bench.sessions.open([&](std::exception_ptr) { gate.wait(), told = true; });
    bench.submit(a, 0, [] { throw std::runtime_error("broken"); });
    CHECK(!bench.scheduler.drained(a, 0.0));
    gate.open();
    bench.wait_for(a);
    CHECK(told.load());
}

TEST("a task can neither wait for a session nor shut its scheduler down") {
    std::atomic<int> refused{0};
    Bench bench({stage(), stage()});
    const SessionId a = bench.sessions.open([&](std::exception_ptr) {
        CHECK(bench.scheduler.runs());
        CHECK_THROWS(SchedulerError, bench.scheduler.shut_down());
        ++refused;
    });
    bench.submit(a, 0, [&] {
        CHECK(bench.scheduler.runs());
        CHECK(!bench.scheduler.drained(a, 0.0));
        CHECK_THROWS(SchedulerError, bench.scheduler.drained(a, 1.0));
        CHECK_THROWS(SchedulerError, bench.scheduler.shut_down());
        ++refused;
        throw std::runtime_error("broken");
    });
    bench.wait_for(a);
    CHECK_EQUAL(refused.load(), 2);
    CHECK(!bench.scheduler.runs());
}

TEST("shutting down waits for what runs, drops what is queued, and then refuses") {
    std::atomic<int> runs{0};
    const auto alive = std::make_shared<int>(0);
    {
        Gate started, through;
        Bench bench({stage(), stage()});
        const SessionId a = bench.sessions.open([kept = alive](std::exception_ptr) {});
        for (size_t i = 0; i < 100; ++i)
            bench.submit(a, i % 2, [&, kept = alive] {
                started.open();
                through.wait();
                ++runs;
            });
        started.wait();
        std::thread first([&] { bench.scheduler.shut_down(); }), second([&] { bench.scheduler.shut_down(); });
        for (bool refused = false; !refused;) try {
                bench.sessions.close(bench.sessions.open());
            } catch (const SchedulerClosed&) {
                refused = true;
            }
        CHECK_EQUAL(runs.load(), 0);
        through.open();
        first.join();
        second.join();
        const int so_far = runs;
        CHECK(so_far >= 1 && so_far <= 2);  // one of each stage
        CHECK(bench.scheduler.drained(a, kNever));
        CHECK_THROWS(SchedulerClosed, bench.submit(a, 0, [] {}));
        CHECK_THROWS(SchedulerClosed, bench.sessions.open());
        CHECK_EQUAL(alive.use_count(), long{1});
        CHECK_EQUAL(runs.load(), so_far);
    }
    Bench unused(stages(4));  // and one that never had anything to do
}

TEST("many threads may do anything at any time") {
    std::atomic<int> failures{0}, runs{0};
    const auto alive = std::make_shared<int>(0);
    {
        Bench bench({stage(3), stage(), stage(2)}, 2);
        std::vector<SessionId> shared;
        const auto count = [&](std::exception_ptr) { ++failures; };
        for (int i = 0; i < 4; ++i) shared.push_back(bench.sessions.open(count, 0.001));
        std::vector<std::thread> threads;
        for (unsigned seed = 0; seed < 4; ++seed)
            threads.emplace_back([&, seed] {
                std::mt19937_64 random(seed);
                const auto pick = [&](int high) { return std::uniform_int_distribution<int>(0, high)(random); };
                for (int i = 0; i < 400; ++i) {
                    const SessionId session = shared[static_cast<size_t>(pick(3))];
                    try {
                        switch (pick(9)) {
                            case 0: bench.sessions.cancel(session); break;
                            case 1: bench.sessions.begin(session); break;
                            case 2: bench.sessions.delivered(session, 0.002); break;
                            case 3: bench.sessions.finish(session); break;
                            case 4: bench.sessions.hold(session, pick(4) == 0); break;
                            case 5: {
                                const SessionId own = bench.sessions.open();
                                bench.submit(own, static_cast<size_t>(pick(2)), [&, kept = alive] { ++runs; });
                                bench.sessions.close(own);
                                break;
                            }
                            case 6:
                                if (bench.scheduler.drained(session, 0.001)) bench.sessions.revive(session);
                                break;
                            default:
                                bench.submit(session, pick(1) ? 0 : 2, [&, kept = alive, fails = pick(9) == 0] {
                                    ++runs;
                                    if (fails) throw std::runtime_error("broken");
                                });
                        }
                    } catch (const SchedulerError&) {  // another thread was quicker
                    }
                }
            });
        for (std::thread& thread : threads) thread.join();
        for (const SessionId session : shared) {
            bench.sessions.hold(session, false);
            bench.sessions.finish(session);
            bench.wait_for(session);
        }
        CHECK(runs > 0);
    }
    CHECK_EQUAL(alive.use_count(), long{1});
}

}  // namespace
}  // namespace omni2::test
