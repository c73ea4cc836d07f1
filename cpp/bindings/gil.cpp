#include "bindings/gil.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace omni2 {
namespace {

// What may still come back to the interpreter. The mutex is held for moments, and never while waiting for its lock.
struct Living {
    std::mutex mutex;
    std::condition_variable changed;
    bool ending = false;
    size_t outside = 0;  // threads that will ask for its lock: in a call without it, or destroying a scheduler
    std::vector<std::weak_ptr<Scheduler>> schedulers;
    std::vector<std::unique_ptr<Scheduler>> kept;  // dropped by a thread of their own where no other could destroy them
};

Living*& current() {
    static Living* all = new Living;  // never destroyed: threads may outlive static objects
    return all;
}

Living& living() { return *current(); }

// In the child of os.fork(): the threads of the parent's schedulers are not in it, and mutexes may be locked for ever.
void forget_the_parent() {
    for (const auto& weak : living().schedulers)
        if (const auto scheduler = weak.lock()) scheduler->orphan();
    current() = new Living;
}

void no_longer_outside() {
    const std::lock_guard<std::mutex> lock(living().mutex);
    --living().outside;
    if (living().ending) living().changed.notify_all();
}

void let_go(Scheduler* scheduler) {
    std::unique_ptr<Scheduler> owned(scheduler);
    std::optional<Unlocked> unlocked;
    if (PyGILState_Check()) unlocked.emplace();
    if (!scheduler->runs()) return owned.reset();
    scheduler->stop();
    const std::lock_guard<std::mutex> lock(living().mutex);
    if (living().ending) return living().kept.push_back(std::move(owned));  // the interpreter may be gone
    // A thread cannot join itself. Another one does, at once: what the stages hold, an engine's memory, is free then.
    try {
        std::thread([scheduler] {
            delete scheduler;
            no_longer_outside();
        }).detach();
        owned.release();
        ++living().outside;
    } catch (const std::system_error&) {  // the system has no more threads
        living().kept.push_back(std::move(owned));
    }
}

void shut_all_down() {
    const py::gil_scoped_release release;
    std::unique_lock<std::mutex> lock(living().mutex);
    living().ending = true;
    const auto known = living().schedulers;
    auto kept = std::exchange(living().kept, {});
    lock.unlock();
    for (const auto& weak : known)
        if (const auto scheduler = weak.lock()) scheduler->shut_down();
    kept.clear();
    lock.lock();
    living().changed.wait(lock, [] { return living().outside == 0; });
}

}  // namespace

Unlocked::Unlocked() {
    {
        const std::lock_guard<std::mutex> lock(living().mutex);
        if (living().ending) return;
        ++living().outside;
    }
    release_.emplace();
}

Unlocked::~Unlocked() {
    if (!release_) return;
    release_.reset();
    no_longer_outside();
}

std::shared_ptr<Scheduler> shared_with_python(std::unique_ptr<Scheduler> scheduler) {
    const std::lock_guard<std::mutex> lock(living().mutex);
    if (living().ending) throw SchedulerClosed("the interpreter is ending, and takes no schedulers any more");
    const auto let_go_here = [home = current()](Scheduler* last) {
        if (home == current()) let_go(last);  // else it is the parent's, and its threads cannot be joined here
    };
    std::shared_ptr<Scheduler> shared(scheduler.release(), let_go_here);
    auto& all = living().schedulers;
    all.erase(std::remove_if(all.begin(), all.end(), [](const auto& weak) { return weak.expired(); }), all.end());
    all.push_back(shared);
    return shared;
}

void shut_down_at_exit() { py::module_::import("atexit").attr("register")(py::cpp_function(&shut_all_down)); }

void start_anew_after_fork() {
    const py::module_ os = py::module_::import("os");
    if (py::hasattr(os, "register_at_fork"))  // Windows has no fork
        os.attr("register_at_fork")(py::arg("after_in_child") = py::cpp_function(&forget_the_parent));
}

}  // namespace omni2
