// Where work runs and in which order: streams, events, copies, host functions and graphs, as CUDA has them. Two
// implementations behave alike: the host's (host_runtime.h) and CUDA's (cuda_runtime.h).
//
// What is enqueued on a stream runs in that order, one after another; different streams run at the same time. Every
// function may be called from any thread. Streams and events may outlive the runtime that made them; they are used with
// that runtime only (std::invalid_argument otherwise).
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace omni2 {

// What a runtime refuses, or a device reports: the problem and, where there is one, its remedy.
class RuntimeFailure : public std::runtime_error {
public:
    RuntimeFailure(std::string problem, std::string remedy)
        : std::runtime_error(remedy.empty() ? problem : problem + " — " + remedy),
          problem_(std::move(problem)),
          remedy_(std::move(remedy)) {}

    const std::string& problem() const { return problem_; }
    const std::string& remedy() const { return remedy_; }

private:
    std::string problem_, remedy_;
};

// A queue of work. Its destructor waits until everything on it has run and every notice has returned, so it must not be
// destroyed by a host function or a notice of its own.
class Stream {
public:
    virtual ~Stream() = default;
    virtual int priority() const = 0;           // as given, clamped to what the device knows
    virtual std::uintptr_t handle() const = 0;  // the cudaStream_t; 0 on the host
};

// A point in a stream: where it was recorded last. May be destroyed while streams still wait for that point.
class Event {
public:
    virtual ~Event() = default;
};

// Work prepared once and launched many times: host_graph() or cuda_graph().
class Graph {
public:
    virtual ~Graph() = default;
};

enum class CopyKind { kHostToHost, kHostToDevice, kDeviceToHost, kDeviceToDevice };  // numbered as cudaMemcpyKind

using Notice = std::function<void(std::exception_ptr)>;  // nullptr: all went well

// Failures. A host function (or, on the host, a graph) that throws fails its stream: host functions behind it are
// skipped until the exception has been reported, once, to the next notify() or synchronize() enqueued behind it. Other
// streams go on, also those that wait for one of its events. An error of a CUDA device is sticky: every stream's
// notices and every further use report it, and host functions not yet run never do.
class Runtime {
public:
    virtual ~Runtime() = default;

    virtual const char* name() const = 0;  // "host" or "cuda"

    // A new stream; a lower priority is more urgent. On the host priorities are kept, but order nothing.
    virtual std::unique_ptr<Stream> stream(int priority) = 0;
    virtual std::unique_ptr<Event> event() = 0;

    // What follows waits until the event's stream has come as far as it was when the event was last recorded; an event
    // never recorded holds nothing back.
    virtual void record(Event& event, Stream& stream) = 0;
    virtual void wait(Stream& stream, Event& event) = 0;

    // Asynchronous: both ranges (bytes) stay valid and untouched until the stream has passed. On CUDA a range of
    // pageable host memory makes it wait for the stream.
    virtual void copy(void* to, const void* from, size_t bytes, CopyKind kind, Stream& stream) = 0;

    // A host function in stream order. It must not use the runtime.
    virtual void call(Stream& stream, std::function<void()> function) = 0;

    // The graph may be destroyed once launched.
    virtual void launch(Graph& graph, Stream& stream) = 0;

    // Calls `notice` on a thread of the runtime when everything enqueued so far has finished or failed; always, and in
    // order. A notice may use the runtime, but not synchronize with its own stream, and must not throw. On the host the
    // stream goes on when the notice has returned, on CUDA at once.
    virtual void notify(Stream& stream, Notice notice) = 0;

    // Waits for everything enqueued so far (for the event's last record) and throws what failed. Notices may come
    // later. A failure that an event reports is still the stream's to report.
    virtual void synchronize(Stream& stream) = 0;
    virtual void synchronize(Event& event) = 0;
};

}  // namespace omni2
