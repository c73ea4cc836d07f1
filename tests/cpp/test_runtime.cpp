// What the interface promises, on the host's runtime and on CUDA's.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>

#include "rig.h"
#include "runtime/host_runtime.h"

using namespace omni2;
using namespace omni2::test;
using Entries = std::vector<std::string>;

namespace {

void boom() { throw std::runtime_error("boom"); }

}  // namespace

TEST_ON_BOTH("work of one stream runs in the order in which it was enqueued", rig) {
    const auto stream = rig.runtime->stream(0);
    std::vector<int> seen, expected(300);
    std::iota(expected.begin(), expected.end(), 0);
    const auto graph = rig.graph([&] { seen.push_back(static_cast<int>(seen.size())); });
    for (int i = 0; i < 300; i += 3) {
        rig.runtime->call(*stream, [&, i] { seen.push_back(i); });
        rig.runtime->launch(*graph, *stream);
        rig.runtime->call(*stream, [&, i] { seen.push_back(i + 2); });
    }
    rig.runtime->synchronize(*stream);
    CHECK_EQUAL(seen, expected);
}

TEST_ON_BOTH("each thread's order is kept on a stream that several feed", rig) {
    const auto stream = rig.runtime->stream(0);
    std::vector<int> last(4, -1);
    bool in_order = true;
    std::vector<std::thread> threads;
    for (size_t t = 0; t < last.size(); ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < 100; ++i)
                rig.runtime->call(*stream, [&, t, i] { in_order = in_order && ++last[t] == i; });
        });
    for (std::thread& thread : threads) thread.join();
    rig.runtime->synchronize(*stream);
    CHECK(in_order);
    CHECK_EQUAL(last, std::vector<int>(4, 99));
}

TEST_ON_BOTH("a stream waits for another stream's event", rig) {
    const auto first = rig.runtime->stream(0), second = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    Gate gate;
    Log log;
    rig.runtime->call(*first, [&] { gate.wait(); });
    rig.runtime->call(*first, [&] { log.add("first"); });
    rig.runtime->record(*event, *first);
    rig.runtime->wait(*second, *event);
    rig.runtime->call(*second, [&] { log.add("second"); });
    let_run_ahead();
    gate.open();
    rig.runtime->synchronize(*second);
    CHECK_EQUAL(log.entries(), (Entries{"first", "second"}));
    rig.runtime->synchronize(*event);
}

TEST_ON_BOTH("a wait is for what was recorded before it, and an event never recorded holds nothing back", rig) {
    const auto first = rig.runtime->stream(0), second = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    Gate gate;
    rig.runtime->wait(*second, *event);
    rig.runtime->synchronize(*event);
    rig.runtime->record(*event, *first);
    rig.runtime->wait(*second, *event);
    rig.runtime->call(*first, [&] { gate.wait(); });
    rig.runtime->record(*event, *first);
    rig.runtime->synchronize(*second);  // hangs at the gate if the second record counts
    CHECK(!gate.is_open());
    gate.open();
    rig.runtime->synchronize(*event);
}

TEST_ON_BOTH("two streams run at the same time", rig) {
    const auto first = rig.runtime->stream(0), second = rig.runtime->stream(0);
    Gate here, there;
    rig.runtime->call(*first, [&] {
        here.open();
        there.wait();
    });
    rig.runtime->call(*second, [&] {
        there.open();
        here.wait();
    });
    rig.runtime->synchronize(*first);
    rig.runtime->synchronize(*second);
}

TEST_ON_BOTH("of one stream one function runs at a time, beside those of another", rig) {
    const auto first = rig.runtime->stream(0), second = rig.runtime->stream(0);
    Gate here, there;
    std::atomic<int> inside{0}, most{0};
    const auto work = [&] {
        most = std::max(most.load(), ++inside);
        let_run_ahead();
        --inside;
    };
    rig.runtime->call(*first, [&] {
        ++inside;
        here.open();
        there.wait();
        --inside;
    });
    for (int i = 0; i < 20; ++i) rig.runtime->call(*first, work);
    rig.runtime->call(*second, [&] {
        there.open();
        here.wait();
    });
    rig.runtime->synchronize(*first);
    rig.runtime->synchronize(*second);
    CHECK_EQUAL(most.load(), 1);
}

TEST_ON_BOTH("copies take their place in the order of streams and events", rig) {
    const auto first = rig.runtime->stream(0), second = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    constexpr size_t kCount = 1000, kBytes = kCount * sizeof(int);
    const auto source = rig.pinned(kBytes), target = rig.pinned(kBytes), middle = rig.memory(kBytes);
    int* const numbers = static_cast<int*>(source.get());
    rig.runtime->call(*first, [&] {
        let_run_ahead();
        std::iota(numbers, numbers + kCount, 7);
    });
    rig.runtime->copy(middle.get(), source.get(), kBytes, CopyKind::kHostToDevice, *first);
    rig.runtime->record(*event, *first);
    rig.runtime->wait(*second, *event);
    rig.runtime->copy(target.get(), middle.get(), kBytes, CopyKind::kDeviceToHost, *second);
    rig.runtime->copy(nullptr, nullptr, 0, CopyKind::kDeviceToDevice, *second);
    rig.runtime->synchronize(*second);
    CHECK_EQUAL(numbers[999], 1006);
    CHECK(std::equal(numbers, numbers + kCount, static_cast<int*>(target.get())));
}

TEST_ON_BOTH("a function that throws fails its stream until that is reported", rig) {
    const auto stream = rig.runtime->stream(0);
    Log log;
    const auto note = [&](std::string entry) { return [&log, entry] { log.add(entry); }; };
    const auto report = [&](std::exception_ptr failure) { log.add(text(failure)); };
    Gate gate;  // all is enqueued before anything runs
    rig.runtime->call(*stream, [&] { gate.wait(); });
    rig.runtime->call(*stream, note("before"));
    rig.runtime->call(*stream, boom);
    rig.runtime->call(*stream, note("skipped"));
    rig.runtime->notify(*stream, report);
    rig.runtime->notify(*stream, report);
    gate.open();
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("fine"));
    CHECK_EQUAL(log.entries(), (Entries{"before", "boom", "fine"}));
    rig.runtime->call(*stream, note("after"));
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("fine"));
    CHECK_EQUAL(log.entries().back(), std::string("after"));
}

TEST_ON_BOTH("work enqueued behind a notice is not skipped for a failure before the notice", rig) {
    const auto stream = rig.runtime->stream(0);
    Gate gate;
    bool ran = false;
    std::string reported;
    rig.runtime->call(*stream, [&] { gate.wait(); });
    rig.runtime->call(*stream, boom);
    rig.runtime->notify(*stream, [&](std::exception_ptr failure) { reported = text(failure); });
    rig.runtime->call(*stream, [&] { ran = true; });
    gate.open();
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("fine"));
    CHECK_EQUAL(reported, std::string("boom"));
    CHECK(ran);
}

TEST_ON_BOTH("synchronize throws what a function threw, once", rig) {
    const auto stream = rig.runtime->stream(0);
    rig.runtime->call(*stream, [] { throw std::out_of_range("far out"); });
    CHECK_EQUAL(CHECK_THROWS(std::out_of_range, rig.runtime->synchronize(*stream)).what(), std::string("far out"));
    rig.runtime->synchronize(*stream);
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("fine"));
}

TEST_ON_BOTH("an event reports what failed before it, and leaves the report to the stream", rig) {
    const auto stream = rig.runtime->stream(0);
    const auto before = rig.runtime->event(), behind = rig.runtime->event();
    rig.runtime->call(*stream, [] {});
    rig.runtime->record(*before, *stream);
    rig.runtime->call(*stream, boom);
    rig.runtime->record(*behind, *stream);
    CHECK_THROWS(std::runtime_error, rig.runtime->synchronize(*behind));
    rig.runtime->synchronize(*before);
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("boom"));
    rig.runtime->record(*behind, *stream);
    rig.runtime->synchronize(*behind);
}

TEST_ON_BOTH("a stream that waits for a failed stream goes on", rig) {
    const auto failing = rig.runtime->stream(0), waiting = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    bool ran = false;
    rig.runtime->call(*failing, boom);
    rig.runtime->record(*event, *failing);
    rig.runtime->wait(*waiting, *event);
    rig.runtime->call(*waiting, [&] { ran = true; });
    CHECK_EQUAL(settle(*rig.runtime, *waiting), std::string("fine"));
    CHECK(ran);
    CHECK_EQUAL(settle(*rig.runtime, *failing), std::string("boom"));
}

TEST_ON_BOTH("every notice comes, in order, with the failure that is its own", rig) {
    const auto stream = rig.runtime->stream(0);
    Log log;
    Entries expected;
    for (int i = 0; i < 100; ++i) {
        if (i % 3 == 0) rig.runtime->call(*stream, [i] { throw std::runtime_error(std::to_string(i)); });
        rig.runtime->notify(*stream, [&](std::exception_ptr failure) { log.add(text(failure)); });
        expected.push_back(i % 3 == 0 ? std::to_string(i) : "fine");
    }
    settle(*rig.runtime, *stream);
    CHECK_EQUAL(log.entries(), expected);
}

TEST_ON_BOTH("a notice comes only when everything before it is done", rig) {
    const auto stream = rig.runtime->stream(0);
    Gate gate;
    Log log;
    rig.runtime->call(*stream, [&] {
        gate.wait();
        log.add("work");
    });
    rig.runtime->notify(*stream, [&](std::exception_ptr) { log.add("notice"); });
    let_run_ahead();
    gate.open();
    settle(*rig.runtime, *stream);
    CHECK_EQUAL(log.entries(), (Entries{"work", "notice"}));
}

TEST_ON_BOTH("a notice may use the runtime", rig) {
    const auto stream = rig.runtime->stream(0), other = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    Gate done;
    Log log;
    rig.runtime->notify(*stream, [&](std::exception_ptr) {
        rig.runtime->call(*stream, [&] { log.add("own stream"); });
        rig.runtime->record(*event, *stream);
        rig.runtime->wait(*other, *event);
        rig.runtime->call(*other, [&] { log.add("other stream"); });
        rig.runtime->notify(*other, [&](std::exception_ptr) { done.open(); });
    });
    done.wait();
    CHECK_EQUAL(log.entries(), (Entries{"own stream", "other stream"}));
}

TEST_ON_BOTH("a stream that is destroyed does all that is queued, and what its last notices add", rig) {
    Log log;
    Gate gate;
    auto stream = rig.runtime->stream(0);
    Stream& used = *stream;
    rig.runtime->call(used, [&] { gate.wait(); });
    for (int i = 0; i < 3; ++i) rig.runtime->call(used, [&log, i] { log.add(std::to_string(i)); });
    rig.runtime->notify(used, [&](std::exception_ptr) {
        rig.runtime->call(used, [&] { log.add("added"); });
        rig.runtime->notify(used, [](std::exception_ptr) {});
        rig.runtime->call(used, [&] {
            let_run_ahead();
            log.add("added last");
        });
    });
    std::thread opener([&] {
        let_run_ahead();
        gate.open();
    });
    stream.reset();
    opener.join();
    CHECK_EQUAL(log.entries(), (Entries{"0", "1", "2", "added", "added last"}));
}

TEST_ON_BOTH("a failed stream that nobody asks can be destroyed", rig) {
    auto stream = rig.runtime->stream(0);
    rig.runtime->call(*stream, boom);
    stream.reset();
}

TEST_ON_BOTH("an event may go while a stream waits for it, and a runtime before its streams", rig) {
    auto first = rig.runtime->stream(0), second = rig.runtime->stream(0);
    auto event = rig.runtime->event(), kept = rig.runtime->event();
    Gate gate;
    Log log;
    rig.runtime->call(*first, [&] {
        gate.wait();
        log.add("first");
    });
    rig.runtime->record(*event, *first);
    rig.runtime->record(*kept, *first);
    rig.runtime->wait(*second, *event);
    rig.runtime->call(*second, [&] { log.add("second"); });
    event.reset();
    rig.runtime.reset();
    let_run_ahead();
    gate.open();
    second.reset();
    CHECK_EQUAL(log.entries(), (Entries{"first", "second"}));
    first.reset();
    kept.reset();
}

TEST_ON_BOTH("functions and notices are released when they have run, or were skipped", rig) {
    const auto stream = rig.runtime->stream(0);
    const auto held = std::make_shared<int>(0);
    rig.runtime->call(*stream, [held] { ++*held; });
    rig.runtime->call(*stream, boom);
    rig.runtime->call(*stream, [held] { ++*held; });
    rig.runtime->notify(*stream, [held](std::exception_ptr) { ++*held; });
    settle(*rig.runtime, *stream);
    CHECK_EQUAL(*held, 2);
    CHECK_EQUAL(held.use_count(), 1L);
}

// A destructor may wait for another thread, as one does that needs Python's interpreter lock.
TEST_ON_BOTH("work can be enqueued while a function that has run is being destroyed", rig) {
    const auto stream = rig.runtime->stream(0);
    Gate dying, gate;
    std::shared_ptr<void> held(nullptr, [&](void*) {
        dying.open();
        gate.wait();
    });
    rig.runtime->call(*stream, [held = std::move(held)] {});
    dying.wait();
    rig.runtime->call(*stream, [] {});
    gate.open();
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("fine"));
}

TEST_ON_BOTH("a function that waits for its own stream is told so", rig) {
    const auto stream = rig.runtime->stream(0);
    rig.runtime->call(*stream, [&] { rig.runtime->synchronize(*stream); });
    CHECK_THROWS(std::logic_error, rig.runtime->synchronize(*stream));
}

TEST_ON_BOTH("what another runtime made is refused", rig) {
    struct OtherStream final : Stream {
        int priority() const override { return 0; }
        std::uintptr_t handle() const override { return 0; }
    } other_stream;
    struct OtherEvent final : Event {
    } other_event;
    struct OtherGraph final : Graph {
    } other_graph;
    const auto stream = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    CHECK_THROWS(std::invalid_argument, rig.runtime->call(other_stream, [] {}));
    CHECK_THROWS(std::invalid_argument, rig.runtime->record(other_event, *stream));
    CHECK_THROWS(std::invalid_argument, rig.runtime->record(*event, other_stream));
    CHECK_THROWS(std::invalid_argument, rig.runtime->wait(*stream, other_event));
    CHECK_THROWS(std::invalid_argument, rig.runtime->launch(other_graph, *stream));
    rig.runtime->synchronize(*event);  // a refused record leaves the event as it was
    rig.runtime->synchronize(*stream);
}

// A relay race over plain variables: only the events order the accesses, which is what a thread sanitizer looks at.
TEST_ON_BOTH("what a stream wrote before an event is seen behind it", rig) {
    constexpr size_t kStreams = 4;
    constexpr int kRounds = 200;
    std::vector<std::unique_ptr<Stream>> streams;
    std::vector<std::unique_ptr<Event>> events;
    for (size_t i = 0; i < kStreams; ++i) {
        streams.push_back(rig.runtime->stream(static_cast<int>(i)));
        events.push_back(rig.runtime->event());
    }
    int baton = 0;
    bool in_order = true;
    for (int i = 0; i < kRounds; ++i) {
        const size_t here = static_cast<size_t>(i) % kStreams, before = (here + kStreams - 1) % kStreams;
        rig.runtime->wait(*streams[here], *events[before]);
        rig.runtime->call(*streams[here], [&, i] { in_order = in_order && baton++ == i; });
        rig.runtime->record(*events[here], *streams[here]);
    }
    rig.runtime->synchronize(*events[(kRounds - 1) % kStreams]);
    CHECK(in_order);
    CHECK_EQUAL(baton, kRounds);
}

TEST_ON_BOTH("many threads may use one runtime, its streams and its events at once", rig) {
    constexpr int kThreads = 4, kRounds = 100;
    std::vector<std::unique_ptr<Stream>> streams;
    for (int i = 0; i < 2; ++i) streams.push_back(rig.runtime->stream(0));
    const auto event = rig.runtime->event();
    std::mutex mutex;
    int calls = 0, notices = 0;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < kRounds; ++i) {
                Stream& stream = *streams[static_cast<size_t>(i + t) % streams.size()];
                rig.runtime->call(stream, [&] {
                    const std::lock_guard<std::mutex> lock(mutex);
                    ++calls;
                });
                rig.runtime->record(*event, stream);
                rig.runtime->wait(*streams[static_cast<size_t>(i) % streams.size()], *event);
                rig.runtime->notify(stream, [&](std::exception_ptr) {
                    const std::lock_guard<std::mutex> lock(mutex);
                    ++notices;
                });
                if (i % 10 == 0) rig.runtime->synchronize(stream);
                if (i % 10 == 5) rig.runtime->synchronize(*event);
            }
        });
    for (std::thread& thread : threads) thread.join();
    for (const auto& stream : streams) settle(*rig.runtime, *stream);
    CHECK_EQUAL(calls, kThreads * kRounds);
    CHECK_EQUAL(notices, kThreads * kRounds);
}

TEST("host: priorities are kept as given, and a stream has no handle") {
    const auto stream = host_runtime()->stream(-7);
    CHECK_EQUAL(stream->priority(), -7);
    CHECK_EQUAL(stream->handle(), std::uintptr_t{0});
}

TEST("host: a graph that throws fails the stream, and may go once launched") {
    const auto runtime = host_runtime();
    const auto stream = runtime->stream(0);
    Gate gate;
    runtime->call(*stream, [&] { gate.wait(); });
    runtime->launch(*host_graph(boom), *stream);
    gate.open();
    CHECK_EQUAL(settle(*runtime, *stream), std::string("boom"));
}
