// A stream is a thread with a queue; an event points to the completion that its last record will set.
#include "runtime/host_runtime.h"

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "runtime/own.h"

namespace omni2 {
namespace {

// Set once, by a stream that got there, together with the failure that the stream had then.
class Completion {
public:
    void finish(std::exception_ptr failure) {
        const std::lock_guard<std::mutex> lock(mutex_);
        done_ = true;
        failure_ = std::move(failure);
        changed_.notify_all();
    }

    std::exception_ptr wait() {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return done_; });
        return failure_;
    }

    // wait() for the only one who asks: the exception then dies with the asker, not on the stream.
    std::exception_ptr take() {
        wait();
        return std::move(failure_);
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;
    std::exception_ptr failure_;
};

class HostEvent final : public Event {
public:
    void recorded(std::shared_ptr<Completion> completion) {
        const std::lock_guard<std::mutex> lock(mutex_);
        completion_ = std::move(completion);
    }

    std::shared_ptr<Completion> last() const {  // nullptr: never recorded
        const std::lock_guard<std::mutex> lock(mutex_);
        return completion_;
    }

private:
    mutable std::mutex mutex_;
    std::shared_ptr<Completion> completion_;
};

class HostGraph final : public Graph {
public:
    explicit HostGraph(std::function<void()> function)
        : function_(std::make_shared<const std::function<void()>>(std::move(function))) {}

    const std::shared_ptr<const std::function<void()>>& function() const { return function_; }

private:
    std::shared_ptr<const std::function<void()>> function_;
};

class HostStream final : public Stream {
public:
    using Work = std::function<void(std::exception_ptr& failure)>;  // `failure`: the stream's, not yet reported

    explicit HostStream(int priority) : priority_(priority), thread_([this] { run(); }) {}

    ~HostStream() override {
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            closing_ = true;
            changed_.notify_one();
        }
        thread_.join();
    }

    int priority() const override { return priority_; }
    std::uintptr_t handle() const override { return 0; }
    bool is_this_thread() const { return std::this_thread::get_id() == thread_.get_id(); }

    void enqueue(Work work) {
        const std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(std::move(work));
        changed_.notify_one();
    }

private:
    void run() {
        std::exception_ptr failure;
        while (Work work = next()) work(failure);
    }

    Work next() {  // empty: nothing is left, and nothing more will come
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return closing_ || !queue_.empty(); });
        if (queue_.empty()) return nullptr;
        Work work = std::move(queue_.front());
        queue_.pop_front();
        return work;
    }

    const int priority_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Work> queue_;
    bool closing_ = false;
    std::thread thread_;  // last: it uses all of the above
};

class HostRuntime final : public Runtime {
public:
    const char* name() const override { return "host"; }

    std::unique_ptr<Stream> stream(int priority) override { return std::make_unique<HostStream>(priority); }
    std::unique_ptr<Event> event() override { return std::make_unique<HostEvent>(); }

    void record(Event& event, Stream& stream) override {
        auto& recorded = own<HostEvent>(event);
        auto completion = std::make_shared<Completion>();
        own<HostStream>(stream).enqueue([completion](std::exception_ptr& failure) { completion->finish(failure); });
        recorded.recorded(std::move(completion));
    }

    void wait(Stream& stream, Event& event) override {
        auto completion = own<HostEvent>(event).last();
        auto& waiting = own<HostStream>(stream);
        if (completion) waiting.enqueue([completion](std::exception_ptr&) { completion->wait(); });
    }

    void copy(void* to, const void* from, size_t bytes, CopyKind, Stream& stream) override {
        own<HostStream>(stream).enqueue([to, from, bytes](std::exception_ptr& failure) {
            if (!failure && bytes > 0) std::memcpy(to, from, bytes);
        });
    }

    void call(Stream& stream, std::function<void()> function) override {
        own<HostStream>(stream).enqueue(
            [function = std::move(function)](std::exception_ptr& failure) { attempt(function, failure); });
    }

    void launch(Graph& graph, Stream& stream) override {
        own<HostStream>(stream).enqueue([function = own<HostGraph>(graph).function()](std::exception_ptr& failure) {
            attempt(*function, failure);
        });
    }

    void notify(Stream& stream, Notice notice) override {
        own<HostStream>(stream).enqueue([notice = std::move(notice)](std::exception_ptr& failure) noexcept {
            notice(std::exchange(failure, nullptr));
        });
    }

    void synchronize(Stream& stream) override {
        auto& waited = own<HostStream>(stream);
        if (waited.is_this_thread()) throw std::logic_error("a stream's own work must not wait for the stream");
        auto completion = std::make_shared<Completion>();
        waited.enqueue(
            [completion](std::exception_ptr& failure) { completion->finish(std::exchange(failure, nullptr)); });
        rethrow(completion->take());
    }

    void synchronize(Event& event) override {
        if (const auto completion = own<HostEvent>(event).last()) rethrow(completion->wait());
    }

private:
    static void attempt(const std::function<void()>& function, std::exception_ptr& failure) {
        if (failure) return;
        try {
            function();
        } catch (...) {
            failure = std::current_exception();
        }
    }

    static void rethrow(const std::exception_ptr& failure) {
        if (failure) std::rethrow_exception(failure);
    }
};

}  // namespace

std::shared_ptr<Runtime> host_runtime() { return std::make_shared<HostRuntime>(); }

std::unique_ptr<Graph> host_graph(std::function<void()> function) {
    return std::make_unique<HostGraph>(std::move(function));
}

}  // namespace omni2
