// What only CUDA has: a library to find, calls that are refused, a device that is lost, resources to give back. All on
// the stand-in libcudart.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>

#include "fake_cudart.h"
#include "rig.h"
#include "runtime/cuda_runtime.h"

using namespace omni2;
using namespace omni2::test;
using Entries = std::vector<std::string>;

namespace {

constexpr int kMemoryAllocation = 2, kInsufficientDriver = 35, kIllegalAddress = 700, kLaunchFailure = 719;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

CUstream_st* fake(const Stream& stream) { return reinterpret_cast<CUstream_st*>(stream.handle()); }

class Variable {  // an environment variable, for a while
public:
    Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
    ~Variable() { unsetenv(name_); }

private:
    const char* name_;
};

}  // namespace

TEST("a library that is not there is named, with what to do") {
    const auto error = CHECK_THROWS(RuntimeFailure, cuda_runtime("/nowhere/libcudart.so"));
    CHECK(contains(error.problem(), "/nowhere/libcudart.so"));
    CHECK(contains(error.remedy(), "OMNI2_CUDART"));
    CHECK_EQUAL(std::string(error.what()), error.problem() + " — " + error.remedy());
}

TEST("a library that is not CUDA's is refused by the function it lacks") {
    const auto error = CHECK_THROWS(RuntimeFailure, cuda_runtime("libstdc++.so.6"));
    CHECK_EQUAL(error.problem(), std::string("libstdc++.so.6 has no function cudaGetDeviceCount"));
}

TEST("OMNI2_CUDART names the library where no other is given") {
    fake_cuda_reset();
    const Variable chosen("OMNI2_CUDART", FAKE_CUDART);
    CHECK_EQUAL(std::string(cuda_runtime()->name()), std::string("cuda"));
    CHECK_THROWS(RuntimeFailure, cuda_runtime("/nowhere/libcudart.so"));
}

TEST("a machine without a driver or a device is told so") {
    fake_cuda_reset();
    fake_cuda_refuse_next("cudaGetDeviceCount", kInsufficientDriver);
    const auto driver = CHECK_THROWS(RuntimeFailure, cuda_runtime(FAKE_CUDART));
    CHECK_EQUAL(driver.problem(),
                std::string("cudaGetDeviceCount failed with cudaErrorInsufficientDriver (35): an injected error"));
    CHECK(contains(driver.remedy(), "driver"));
    fake_cuda_set_devices(0);
    const auto device = CHECK_THROWS(RuntimeFailure, cuda_runtime(FAKE_CUDART));
    CHECK_EQUAL(device.problem(), std::string("there is no CUDA device"));
    CHECK(contains(device.remedy(), "CUDA_VISIBLE_DEVICES"));
}

TEST("priorities are clamped to what the device knows, and a stream has CUDA's handle") {
    const Rig rig = cuda_rig();
    CHECK_EQUAL(rig.runtime->stream(-100)->priority(), -5);
    CHECK_EQUAL(rig.runtime->stream(-2)->priority(), -2);
    CHECK_EQUAL(rig.runtime->stream(3)->priority(), 0);
    CHECK(rig.runtime->stream(0)->handle() != 0);
}

TEST("work that others enqueue on the handle counts for notices, events and order") {
    const Rig rig = cuda_rig();
    const auto stream = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    Log log;
    fake_cuda_log_begin();
    fake_cuda_delay(fake(*stream), 50'000);
    rig.runtime->call(*stream, [&] { log.add("call after " + std::string(fake_cuda_log())); });
    rig.runtime->record(*event, *stream);
    rig.runtime->notify(*stream, [&](std::exception_ptr failure) { log.add(text(failure)); });
    rig.runtime->synchronize(*event);
    CHECK(contains(log.entries().front(), "delay"));
    settle(*rig.runtime, *stream);
    CHECK_EQUAL(log.entries().back(), std::string("fine"));
}

TEST("two graphs on two streams overlap, one graph never runs beside itself") {
    const Rig rig = cuda_rig();
    const auto first = rig.runtime->stream(0), second = rig.runtime->stream(0);
    Gate here, there;
    const auto left = rig.graph([&] { here.open(), there.wait(); });
    const auto right = rig.graph([&] { there.open(), here.wait(); });
    rig.runtime->launch(*left, *first);
    rig.runtime->launch(*right, *second);
    rig.runtime->synchronize(*first);
    rig.runtime->synchronize(*second);
    std::atomic<int> inside{0}, most{0};
    const auto alone = rig.graph([&] {
        most = std::max(most.load(), ++inside);
        let_run_ahead();
        --inside;
    });
    for (int i = 0; i < 20; ++i) {
        rig.runtime->launch(*alone, *first);
        rig.runtime->launch(*alone, *second);
    }
    rig.runtime->synchronize(*first);
    rig.runtime->synchronize(*second);
    CHECK_EQUAL(most.load(), 1);
}

TEST("a device that is lost ends all work with its error, on every stream") {
    Rig rig = cuda_rig();
    auto stream = rig.runtime->stream(0), other = rig.runtime->stream(0);
    const auto event = rig.runtime->event();
    const auto held = std::make_shared<int>(0);
    Gate gate;
    Log log;
    const auto report = [&](std::exception_ptr failure) { log.add(text(failure)); };
    rig.runtime->call(*stream, [&] { gate.wait(); });
    rig.runtime->notify(*stream, report);
    fake_cuda_fault(fake(*stream), kIllegalAddress);
    rig.runtime->call(*stream, [held] { ++*held; });
    rig.runtime->record(*event, *stream);
    rig.runtime->notify(*stream, report);
    gate.open();
    const std::string outcome = settle(*rig.runtime, *stream);
    CHECK(contains(outcome, "cudaErrorIllegalAddress (700): an illegal memory access was encountered"));
    CHECK(contains(outcome, "start the process again"));
    CHECK_EQUAL(log.entries().size(), size_t{2});
    CHECK_EQUAL(log.entries().back(), outcome);
    CHECK_EQUAL(*held, 0);

    CHECK(contains(settle(*rig.runtime, *other), "cudaErrorIllegalAddress"));
    CHECK_THROWS(RuntimeFailure, rig.runtime->synchronize(*stream));
    CHECK_THROWS(RuntimeFailure, rig.runtime->synchronize(*event));
    CHECK_THROWS(RuntimeFailure, rig.runtime->call(*other, [] {}));
    CHECK_THROWS(RuntimeFailure, rig.runtime->record(*event, *other));
    CHECK_THROWS(RuntimeFailure, rig.runtime->wait(*other, *event));
    CHECK_THROWS(RuntimeFailure, rig.runtime->copy(nullptr, nullptr, 0, CopyKind::kHostToHost, *other));
    CHECK_THROWS(RuntimeFailure, rig.runtime->launch(*rig.graph([] {}), *other));
    CHECK_THROWS(RuntimeFailure, rig.runtime->stream(0));

    stream.reset();
    other.reset();
    CHECK_EQUAL(held.use_count(), 1L);  // what never ran is released
}

TEST("an exception thrown before the device is lost is what the notice reports") {
    const Rig rig = cuda_rig();
    const auto stream = rig.runtime->stream(0);
    rig.runtime->call(*stream, [] { throw std::runtime_error("mine"); });
    fake_cuda_fault(fake(*stream), kLaunchFailure);
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("mine"));
    CHECK(contains(settle(*rig.runtime, *stream), "cudaErrorLaunchFailure"));
}

TEST("a notice of a lost device waits for the function that is still running") {
    const Rig rig = cuda_rig();
    const auto stream = rig.runtime->stream(0), failing = rig.runtime->stream(0);
    Gate started, gate;
    Log log;
    std::shared_ptr<void> held(nullptr, [&](void*) {
        let_run_ahead();
        log.add("released");
    });
    rig.runtime->call(*stream, [&, held = std::move(held)] {
        started.open();
        gate.wait();
        log.add("function");
    });
    rig.runtime->notify(*stream, [&](std::exception_ptr) { log.add("notice"); });
    started.wait();
    fake_cuda_fault(fake(*failing), kIllegalAddress);
    CHECK(settle(*rig.runtime, *failing) != "fine");
    let_run_ahead();
    CHECK_EQUAL(log.entries(), Entries{});
    gate.open();
    settle(*rig.runtime, *stream);
    CHECK_EQUAL(log.entries(), (Entries{"function", "released", "notice"}));
}

TEST("whoever waits for a stream of a lost device waits for the function that is still running, then is told") {
    const Rig rig = cuda_rig();
    const auto failing = rig.runtime->stream(0);
    for (const bool destroys : {false, true}) {
        auto stream = rig.runtime->stream(0);
        Gate started, gate;
        Log log;
        rig.runtime->call(*stream, [&] {
            started.open();
            gate.wait();
            log.add("function");
        });
        started.wait();
        fake_cuda_fault(fake(*failing), kIllegalAddress);
        settle(*rig.runtime, *failing);
        std::thread waiting([&] {
            if (!destroys) CHECK_THROWS(RuntimeFailure, rig.runtime->synchronize(*stream));
            if (destroys) stream.reset();
            log.add("waited");
        });
        let_run_ahead();
        gate.open();
        waiting.join();
        CHECK_EQUAL(log.entries(), (Entries{"function", "waited"}));
        stream.reset();
        fake_cuda_reset();
    }
}

TEST("a function that CUDA refuses is dropped, and those around it run in order") {
    const Rig rig = cuda_rig();
    const auto stream = rig.runtime->stream(0);
    const auto held = std::make_shared<int>(0);
    Gate gate;
    Log log;
    rig.runtime->call(*stream, [&] { gate.wait(); });
    rig.runtime->call(*stream, [&] { log.add("before"); });
    fake_cuda_refuse_next("cudaLaunchHostFunc", kMemoryAllocation);
    const auto error = CHECK_THROWS(RuntimeFailure, rig.runtime->call(*stream, [held] { ++*held; }));
    CHECK(contains(error.what(), "cudaLaunchHostFunc failed with cudaErrorMemoryAllocation (2)"));
    CHECK(contains(error.remedy(), "memory"));
    CHECK_EQUAL(held.use_count(), 1L);
    rig.runtime->call(*stream, [&] { log.add("behind"); });
    gate.open();
    CHECK_EQUAL(settle(*rig.runtime, *stream), std::string("fine"));
    CHECK_EQUAL(log.entries(), (Entries{"before", "behind"}));
}

TEST("a notice comes also where CUDA refuses to record it, and nothing runs behind its back") {
    const Rig rig = cuda_rig();
    for (const char* function : {"cudaEventCreateWithFlags", "cudaEventRecord"}) {
        const auto stream = rig.runtime->stream(0);
        fake_cuda_refuse_next(function, kMemoryAllocation);
        const std::string outcome = settle(*rig.runtime, *stream);
        CHECK(contains(outcome, std::string(function) + " failed with cudaErrorMemoryAllocation"));
        CHECK_THROWS(RuntimeFailure, rig.runtime->call(*stream, [] {}));
        CHECK_THROWS(RuntimeFailure, rig.runtime->synchronize(*stream));
    }
    const auto fresh = rig.runtime->stream(0);
    CHECK_EQUAL(settle(*rig.runtime, *fresh), std::string("fine"));
}

TEST("a stream or an event that CUDA refuses leaves nothing behind") {
    const Rig rig = cuda_rig();
    fake_cuda_refuse_next("cudaStreamCreateWithPriority", kMemoryAllocation);
    CHECK_THROWS(RuntimeFailure, rig.runtime->stream(0));
    fake_cuda_refuse_next("cudaEventCreateWithFlags", kMemoryAllocation);
    CHECK_THROWS(RuntimeFailure, rig.runtime->event());
    CHECK_EQUAL(fake_cuda_live_streams(), 0);
    CHECK_EQUAL(fake_cuda_live_events(), 0);
}

TEST("streams and events are given back, and notices share a few events") {
    Rig rig = cuda_rig();
    for (int i = 0; i < 20; ++i) {
        const auto stream = rig.runtime->stream(0);
        const auto event = rig.runtime->event();
        rig.runtime->record(*event, *stream);
        for (int k = 0; k < 10; ++k) settle(*rig.runtime, *stream);
        CHECK_EQUAL(fake_cuda_live_events(), 2);  // the event, and one for all notices, which came one after another
    }
    rig.runtime.reset();
    CHECK_EQUAL(fake_cuda_live_streams(), 0);
    CHECK_EQUAL(fake_cuda_live_events(), 0);
}
