// The scheduler's threads, on both runtimes.
#include "scheduler/scheduler.h"

#include <atomic>
#include <random>
#include <utility>

#include "fake_cudart.h"
#include "rig.h"

namespace omni2::test {
namespace {


constexpr double kSoon = 300.0;  // seconds after which a test is taken to hang

using Body = std::function<void()>;  // a task's payload: what it does

Payload payload(Body body) { return std::make_shared<Body>(std::move(body)); }

Body& body(const Payload& payload) { return *static_cast<Body*>(payload.get()); }

// A stage whose tasks are host functions; what one throws fails that one alone.
Scheduler::Stage host_stage(size_t max_batch = 1) {
    return {{max_batch, 0}, [](const Scheduler::Admit& admit, Stream&) {
                Errors errors;
                for (const Payload& task : admit())
                    errors.push_back(outcome_of([&] { return body(task)(), Errors{}; }).failure);
                return errors;
            }};
}

// A stage whose tasks are launched as graphs.
Scheduler::Stage graph_stage(const Rig& rig) {
    auto graphs = std::make_shared<std::vector<std::unique_ptr<Graph>>>();
    return {{},
            [rig, graphs](const Scheduler::Admit& admit, Stream& stream) {
                for (const Payload& task : admit()) {
                    Body* const lives = &body(task);  // until the stream has got there
                    graphs->push_back(rig.graph([lives] { (*lives)(); }));
                    rig.runtime->launch(*graphs->back(), stream);
                }
                return Errors{};
            },
            true};
}

std::vector<Scheduler::Stage> host_stages(size_t count) { return std::vector<Scheduler::Stage>(count, host_stage()); }

struct Bench {
    Bench(const Rig& rig, std::vector<Scheduler::Stage> stages, size_t width = 100)
        : scheduler(std::move(stages), rig.runtime, width, Order::kDeadline) {}

    SessionId open(omni2::Failed failed = nullptr, double run_ahead = kNever) {
        return scheduler.open(std::move(failed), run_ahead);
    }
    TaskId submit(SessionId session, size_t stage, Body body, const std::vector<TaskId>& after = {}) {
        return scheduler.submit(session, stage, payload(std::move(body)), after, 0);
    }
    void finish(SessionId session) { CHECK(scheduler.drained(session, kSoon)); }

    Scheduler scheduler;
};

TEST_ON_BOTH("tasks run after those they come after, on whatever stage", rig) {
    Log log;
    Bench bench(rig, {host_stage(), graph_stage(rig), host_stage()});
    const SessionId a = bench.open();
    std::vector<TaskId> before;
    std::vector<std::string> expected;
    for (int i = 0; i < 60; ++i) {
        const std::string name = std::to_string(i);
        before = {bench.submit(a, static_cast<size_t>(i * 7 % 3), [&log, name] { log.add(name); }, before)};
        expected.push_back(name);
    }
    bench.finish(a);
    CHECK_EQUAL(log.entries(), expected);
}

TEST_ON_BOTH("stages overlap", rig) {
    Gate left, right;
    Bench bench(rig, {graph_stage(rig), graph_stage(rig)});
    const SessionId a = bench.open();
    bench.submit(a, 0, [&] { left.open(), right.wait(); });
    bench.submit(a, 1, [&] { right.open(), left.wait(); });
    bench.finish(a);
    CHECK(left.is_open() && right.is_open());
}

TEST_ON_BOTH("a width of 1 lets one task run at a time, over all stages", rig) {
    std::atomic<int> inside{0}, most{0};
    Bench bench(rig, {graph_stage(rig), host_stage(), host_stage()}, 1);
    const SessionId a = bench.open();
    for (size_t i = 0; i < 60; ++i)
        bench.submit(a, i % 3, [&] {
            most = std::max(most.load(), ++inside);
            let_run_ahead();
            --inside;
        });
    bench.finish(a);
    CHECK_EQUAL(most.load(), 1);
}

TEST_ON_BOTH("launched tasks are done when their stream has got there", rig) {
    Gate gate;
    std::atomic<bool> done{false};
    Bench bench(rig, {graph_stage(rig), host_stage()});
    const SessionId a = bench.open();
    const TaskId launched = bench.submit(a, 0, [&] { gate.wait(), done = true; });
    std::atomic<bool> done_before{false};
    bench.submit(a, 1, [&] { done_before = done.load(); }, {launched});
    CHECK(!bench.scheduler.drained(a, 0.0));
    gate.open();
    bench.finish(a);
    CHECK(done_before.load());
}

TEST_ON_BOTH("tasks submit tasks", rig) {
    std::atomic<int> runs{0};
    Bench bench(rig, host_stages(2));
    const SessionId a = bench.open();
    std::function<void()> step = [&] {
        if (++runs < 500) bench.submit(a, static_cast<size_t>(runs % 2), step);
    };
    bench.submit(a, 0, step);
    bench.finish(a);
    CHECK_EQUAL(runs.load(), 500);
}

TEST_ON_BOTH("sessions share calls", rig) {
    Gate gate;
    std::vector<size_t> sizes;
    auto stage = host_stage(4);
    stage.function = [&, run = stage.function](const Scheduler::Admit& admit, Stream& stream) {
        return run([&]() -> std::vector<Payload>& {
            auto& payloads = admit();
            sizes.push_back(payloads.size());
            return payloads;
        }, stream);
    };
    std::vector<SessionId> sessions;
    Bench bench(rig, {stage});
    for (int i = 0; i < 7; ++i) sessions.push_back(bench.open());
    bench.submit(sessions[6], 0, [&] { gate.wait(); });
    for (int i = 0; i < 6; ++i) bench.submit(sessions[i], 0, [] {});
    gate.open();
    for (const SessionId session : sessions) bench.finish(session);
    CHECK_EQUAL(sizes, (std::vector<size_t>{1, 4, 2}));
}

TEST_ON_BOTH("a task that fails ends its session, with the error, and no other", rig) {
    Log log;
    Bench bench(rig, host_stages(2));
    const SessionId a = bench.open([&](std::exception_ptr error) { log.add(text(error)); }), b = bench.open();
    std::atomic<int> others{0};
    bench.scheduler.hold(a, true);
    bench.submit(a, 0, [] { throw std::runtime_error("broken"); });
    bench.submit(a, 0, [&] { log.add("came after a failure"); });
    bench.scheduler.hold(a, false);
    for (size_t i = 0; i < 100; ++i) bench.submit(b, i % 2, [&] { ++others; });
    bench.finish(a);
    bench.finish(b);
    CHECK_EQUAL(log.entries(), std::vector<std::string>{"broken"});
    CHECK_EQUAL(others.load(), 100);
    CHECK_THROWS(SessionCancelled, bench.submit(a, 0, [] {}));
    bench.scheduler.revive(a);
    bench.submit(a, 0, [&] { log.add("revived"); });
    bench.finish(a);
    CHECK_EQUAL(log.entries().back(), std::string("revived"));
}

TEST("host: work on a stream that fails ends its task's session, and no other") {
    const Rig rig = host_rig();
    Log log;
    Bench bench(rig, {graph_stage(rig)});
    const auto failed = [&](std::exception_ptr error) { log.add(text(error)); };
    const SessionId a = bench.open(failed), b = bench.open(failed);
    bench.submit(a, 0, [] { throw std::runtime_error("broken"); });
    bench.submit(b, 0, [&] { log.add("fine"); });
    bench.finish(a);
    bench.finish(b);
    CHECK_EQUAL(log.entries(), (std::vector<std::string>{"broken", "fine"}));
}

TEST("cuda: a lost device fails every session, and keeps nobody waiting") {
    const Rig rig = cuda_rig();
    bool lost = false;  // a second fault might come after the next test has reset the device
    Scheduler::Stage fault{{}, [&lost](const Scheduler::Admit& admit, Stream& stream) {
                               admit();
                               if (!std::exchange(lost, true))
                                   fake_cuda_fault(reinterpret_cast<CUstream_st*>(stream.handle()), 700);
                               return Errors{};
                           }, true};
    std::atomic<int> failures{0};
    Bench bench(rig, {fault, host_stage(), graph_stage(rig)});
    std::vector<SessionId> sessions;
    for (int i = 0; i < 4; ++i) sessions.push_back(bench.open([&](std::exception_ptr error) {
        failures += text(error).find("700") != std::string::npos;
    }));
    bench.submit(sessions[0], 0, [] {});
    bench.finish(sessions[0]);
    for (size_t i = 1; i < 4; ++i)
        for (int task = 0; task < 3; ++task) {
            try {
                bench.submit(sessions[i], i - 1, [] {});
            } catch (const SessionCancelled&) {  // the task before has failed already
            }
        }
    for (const SessionId session : sessions) bench.finish(session);
    CHECK_EQUAL(failures.load(), 4);
}

TEST("cuda: a launch that CUDA refuses fails its session, and no other") {
    const Rig rig = cuda_rig();
    Bench bench(rig, {graph_stage(rig)});
    std::atomic<int> failures{0}, runs{0};
    const auto failed = [&](std::exception_ptr) { ++failures; };
    const SessionId a = bench.open(failed), b = bench.open(failed);
    fake_cuda_refuse_next("cudaGraphLaunch", 2);
    bench.submit(a, 0, [&] { runs += 10; });
    bench.finish(a);
    bench.submit(b, 0, [&] { ++runs; });
    bench.finish(b);
    CHECK_EQUAL(failures.load(), 1);
    CHECK_EQUAL(runs.load(), 1);
}

TEST_ON_BOTH("cancelling drops what is queued and lets what runs finish", rig) {
    Gate started, gate;
    std::atomic<int> runs{0};
    Bench bench(rig, host_stages(1));
    const SessionId a = bench.open(), b = bench.open();
    const auto alive = std::make_shared<int>(0);
    bench.submit(a, 0, [&] { started.open(), gate.wait(), ++runs; });
    for (int i = 0; i < 100; ++i) bench.submit(a, 0, [&, kept = alive] { ++runs; });
    started.wait();
    bench.scheduler.cancel(a);
    CHECK_EQUAL(alive.use_count(), long{1});
    CHECK(!bench.scheduler.drained(a, 0.0));
    bench.submit(b, 0, [&] { runs += 10; });
    gate.open();
    bench.finish(a);
    bench.finish(b);
    CHECK_EQUAL(runs.load(), 11);
}

// One session's tasks follow one another while another's go on; it is cancelled again and again when so many of them
// have been entered. When cancel() returns with a task inside, as every other one is made to be, nothing more may be
// entered; in the gap between two, one whose turn it was already may.
TEST_ON_BOTH("1000 cancellations at random moments: no task starts after one, others go on, nothing is left", rig) {
    std::mt19937_64 random(1);
    std::atomic<int> entered{0}, left{0}, wrong{0};
    std::atomic<bool> over{false};
    const auto alive = std::make_shared<int>(0);
    Bench bench(rig, host_stages(3));
    const SessionId other = bench.open();
    std::atomic<int> others{0};
    std::function<void()> step = [&] {
        ++others;
        if (!over) bench.submit(other, 2, step);
    };
    bench.submit(other, 2, step);
    const SessionId a = bench.open();
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
        bench.scheduler.cancel(a);
        const int entered_then = entered;
        through.open();
        CHECK(bench.scheduler.drained(a, kSoon));
        wrong += entered > entered_then + (held ? 0 : 1);
        CHECK_EQUAL(entered.load(), left.load());
        bench.scheduler.revive(a);
    }
    over = true;
    bench.finish(other);
    CHECK_EQUAL(wrong.load(), 0);
    CHECK_EQUAL(alive.use_count(), long{1});
    CHECK(others > 1000);
    CHECK_EQUAL(bench.scheduler.counts().queued, size_t{0});
    CHECK_EQUAL(bench.scheduler.counts().running, size_t{0});
}

TEST_ON_BOTH("a session too far ahead starts again at its moment, by itself", rig) {
    Bench bench(rig, host_stages(1));
    const SessionId a = bench.open(nullptr, 0.05), b = bench.open();
    bench.submit(b, 0, [] {});
    bench.finish(b);
    let_run_ahead();  // until the dispatcher sleeps, without a time to wake
    bench.scheduler.begin(a);
    bench.scheduler.begin(b);
    bench.scheduler.delivered(a, 0.1);
    double started = 0.0;
    const double due = bench.scheduler.now() + bench.scheduler.lead(a) - 0.05;
    bench.submit(a, 0, [&] { started = bench.scheduler.now(); });
    bench.finish(a);
    CHECK(started >= due);
}

TEST_ON_BOTH("whoever waits for a session waits for its owner to hear of a failure", rig) {
    Gate gate;
    std::atomic<bool> told{false};
    Bench bench(rig, host_stages(1));
    const SessionId a = bench.open([&](std::exception_ptr) { gate.wait(), told = true; });
    bench.submit(a, 0, [] { throw std::runtime_error("broken"); });
    CHECK(!bench.scheduler.drained(a, 0.0));
    gate.open();
    bench.finish(a);
    CHECK(told.load());
}

TEST_ON_BOTH("a task can neither wait for a session nor shut its scheduler down", rig) {
    std::atomic<int> refused{0};
    Bench bench(rig, {host_stage(), graph_stage(rig)});
    const SessionId a = bench.open([&](std::exception_ptr) {
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
    bench.finish(a);
    CHECK_EQUAL(refused.load(), 2);
    CHECK(!bench.scheduler.runs());
}

TEST_ON_BOTH("shutting down waits for what runs, drops what is queued, and then refuses", rig) {
    std::atomic<int> runs{0};
    const auto alive = std::make_shared<int>(0);
    {
        Gate started, through;
        Bench bench(rig, {host_stage(), graph_stage(rig)});
        const SessionId a = bench.open([kept = alive](std::exception_ptr) {});
        for (size_t i = 0; i < 100; ++i)
            bench.submit(a, i % 2, [&, kept = alive] {
                started.open();
                through.wait();
                ++runs;
            });
        started.wait();
        std::thread first([&] { bench.scheduler.shut_down(); }), second([&] { bench.scheduler.shut_down(); });
        for (bool refused = false; !refused;) try {
                bench.scheduler.close(bench.open());
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
        CHECK_THROWS(SchedulerClosed, bench.open());
        CHECK_EQUAL(alive.use_count(), long{1});
        CHECK_EQUAL(runs.load(), so_far);
    }
    Bench unused(rig, host_stages(4));  // and one that never had anything to do
}

TEST_ON_BOTH("many threads may do anything at any time", rig) {
    std::atomic<int> failures{0}, runs{0};
    const auto alive = std::make_shared<int>(0);
    {
        Bench bench(rig, {host_stage(3), graph_stage(rig), host_stage(2)}, 2);
        std::vector<SessionId> shared;
        for (int i = 0; i < 4; ++i) shared.push_back(bench.open([&](std::exception_ptr) { ++failures; }, 0.001));
        std::vector<std::thread> threads;
        for (unsigned seed = 0; seed < 4; ++seed)
            threads.emplace_back([&, seed] {
                std::mt19937_64 random(seed);
                const auto pick = [&](int high) { return std::uniform_int_distribution<int>(0, high)(random); };
                for (int i = 0; i < 400; ++i) {
                    const SessionId session = shared[static_cast<size_t>(pick(3))];
                    try {
                        switch (pick(9)) {
                            case 0: bench.scheduler.cancel(session); break;
                            case 1: bench.scheduler.begin(session); break;
                            case 2: bench.scheduler.delivered(session, 0.002); break;
                            case 3: bench.scheduler.finish(session); break;
                            case 4: bench.scheduler.hold(session, pick(4) == 0); break;
                            case 5: {
                                const SessionId own = bench.open();
                                bench.submit(own, static_cast<size_t>(pick(2)), [&, kept = alive] { ++runs; });
                                bench.scheduler.close(own);
                                break;
                            }
                            case 6:
                                if (bench.scheduler.drained(session, 0.001)) bench.scheduler.revive(session);
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
            bench.scheduler.hold(session, false);
            bench.scheduler.finish(session);
            bench.finish(session);
        }
        CHECK(runs > 0);
    }
    CHECK_EQUAL(alive.use_count(), long{1});
}

}  // namespace
}  // namespace omni2::test
