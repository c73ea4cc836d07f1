#include "scheduler/core.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>

namespace omni2 {
namespace {

std::string named(SessionId session) { return "session " + std::to_string(session); }

// The session of that id among the open ones; nullptr: it was closed. `next`: the id that is given next.
template <class Sessions>
auto find_in(Sessions& sessions, SessionId id, SessionId next) {
    if (id == 0 || id >= next) throw std::invalid_argument(named(id) + " was never opened");
    const auto found = sessions.find(id);
    return found == sessions.end() ? nullptr : &found->second;
}

// One entry for each of a call's tasks.
Errors errors_of(const Outcome& outcome, size_t tasks) {
    if (outcome.failure) return Errors(tasks, outcome.failure);
    if (outcome.errors.empty()) return Errors(tasks);
    if (outcome.errors.size() == tasks) return outcome.errors;
    return Errors(tasks, std::make_exception_ptr(std::invalid_argument(
                             "a stage returned " + std::to_string(outcome.errors.size()) + " results for " +
                             std::to_string(tasks) + " tasks — return one for each, or none")));
}

}  // namespace

Core::Core(std::vector<StageShape> stages, size_t width, Order order) : width_(width), order_(order) {
    if (stages.empty()) throw std::invalid_argument("a scheduler needs at least one stage");
    if (width == 0) throw std::invalid_argument("width must be at least 1");
    for (const StageShape& shape : stages) {
        if (shape.max_batch == 0) throw std::invalid_argument("max_batch must be at least 1");
        stages_.push_back({shape, {}, false, false, {}});
    }
}

Core::Session* Core::find(SessionId session) { return find_in(sessions_, session, next_session_); }

const Core::Session* Core::find(SessionId session) const { return find_in(sessions_, session, next_session_); }

SessionId Core::open(Failed&& failed, double run_ahead) {
    if (closed_) throw SchedulerClosed("the scheduler is shut down — make a new one to open sessions");
    if (!(run_ahead >= 0.0)) throw std::invalid_argument("run_ahead must be 0 s or more");
    const SessionId id = next_session_++;
    Session session;
    session.id = id;
    if (failed) session.failed = std::make_shared<Failed>(std::move(failed));
    session.run_ahead = run_ahead;
    session.first_task = next_task_;
    session.queues.resize(stages_.size());
    sessions_.emplace(id, std::move(session));
    return id;
}

void Core::check_dependencies(const Session& session, const std::vector<TaskId>& after) const {
    for (const TaskId earlier : after) {
        const auto found = tasks_.find(earlier);
        const bool known = found == tasks_.end() ? earlier >= session.first_task && earlier < next_task_
                                                 : found->second.session == &session;
        if (!known)
            throw std::invalid_argument("task " + std::to_string(earlier) + " is none of " + named(session.id) +
                                        " — a task comes after tasks its own session submitted since it was revived");
    }
}

TaskId Core::submit(SessionId id, size_t stage, Payload&& payload, const std::vector<TaskId>& after, int64_t key) {
    if (closed_) throw SchedulerClosed("the scheduler is shut down — make a new one to submit tasks");
    Session* const session = find(id);
    if (!session || session->closing) throw SessionCancelled(named(id) + " is closed — open another one");
    if (session->cancelled)
        throw SessionCancelled(named(id) + " is cancelled — revive it once it is drained to submit again");
    if (stage >= stages_.size()) throw std::invalid_argument("there is no stage " + std::to_string(stage));
    check_dependencies(*session, after);

    const TaskId task_id = next_task_++;
    Task& task =
        tasks_.emplace(task_id, Task{task_id, session, stage, std::move(payload), key, 0, {}, false, 0}).first->second;
    for (const TaskId earlier : after) {
        const auto found = tasks_.find(earlier);
        if (found == tasks_.end()) continue;  // done
        found->second.dependents.push_back(task_id);
        ++task.waits_for;
    }
    session->queues[stage].push_back(&task);
    ++session->queued;
    ++queued_;
    if (session->queues[stage].size() == 1) offer_head(*session, stage);
    update(*session);
    return task_id;
}

void Core::offer_head(Session& session, size_t stage) {
    const auto& queue = session.queues[stage];
    if (!queue.empty() && queue.front()->waits_for == 0) stages_[stage].ready.push_back(queue.front());
}

void Core::begin(SessionId id) {
    Session* const session = find(id);
    if (!session) return;
    session->phase = Phase::kFirstChunk;
    session->turn = next_turn_++;
    session->deadline = -kNever;
    update(*session);
}

void Core::speculate(SessionId id) {
    Session* const session = find(id);
    if (!session) return;
    session->phase = Phase::kSpeculating;
    session->turn = next_turn_++;
    session->deadline = -kNever;
    update(*session);
}

void Core::delivered(SessionId id, double seconds, double now) {
    if (!(std::isfinite(seconds) && seconds >= 0.0)) throw std::invalid_argument("seconds of sound must be 0 or more");
    Session* const session = find(id);
    if (!session) return;
    session->deadline = std::max(session->deadline, now) + seconds;
    if (session->phase == Phase::kFirstChunk) session->phase = Phase::kPlaying;
}

void Core::finish(SessionId id) {
    Session* const session = find(id);
    if (!session) return;
    session->phase = Phase::kIdle;
    update(*session);
}

void Core::hold(SessionId id, bool held) {
    if (Session* const session = find(id)) session->held = held;
}

void Core::cancel(SessionId id) {
    if (Session* const session = find(id)) drop_and_cancel(*session);
}

void Core::drop_and_cancel(Session& session) {
    drop_queued(session);
    session.cancelled = true;
    update(session);
}

void Core::drop_queued(Session& session) {
    for (Stage& stage : stages_) {
        auto& ready = stage.ready;
        const auto own = [&](const Task* task) { return task->session == &session; };
        ready.erase(std::remove_if(ready.begin(), ready.end(), own), ready.end());
    }
    for (auto& queue : session.queues) {
        for (Task* task : queue) retire(*task);
        queue.clear();
    }
    queued_ -= session.queued;
    session.queued = 0;
}

void Core::revive(SessionId id) {
    Session* const session = find(id);
    if (!session || session->closing) throw SessionCancelled(named(id) + " is closed — open another one");
    if (!session->cancelled) return;
    if (!drained(id)) throw SchedulerError(named(id) + " still runs a task — wait until it is drained to revive it");
    session->phase = Phase::kIdle;
    session->deadline = -kNever;
    session->held = false;
    session->cancelled = false;
    session->first_task = next_task_;
}

void Core::close(SessionId id) {
    Session* const session = find(id);
    if (!session) return;
    session->closing = true;
    drop_and_cancel(*session);
}

void Core::shut_down() {
    closed_ = true;
    std::vector<SessionId> open;
    for (const auto& entry : sessions_) open.push_back(entry.first);
    for (const SessionId id : open) close(id);
}

Core Core::closed_twin() const {
    std::vector<StageShape> shapes;
    for (const Stage& stage : stages_) shapes.push_back(stage.shape);
    Core twin(std::move(shapes), width_, order_);
    twin.next_session_ = next_session_;
    twin.closed_ = true;
    return twin;
}

bool Core::drained(SessionId id) const {
    const Session* const session = find(id);
    return !session || session->queued + session->running + session->reports == 0;
}

bool Core::idle() const { return queued_ + running_ + reports_ == 0; }

double Core::lead(SessionId id, double now) const {
    const Session* const session = find(id);
    return session && session->deadline > -kNever ? session->deadline - now : 0.0;
}

Counts Core::counts() const { return {sessions_.size(), queued_, running_}; }

bool Core::should_preempt(size_t number, double now) const {
    if (number >= stages_.size()) throw std::invalid_argument("there is no stage " + std::to_string(number));
    const Stage& stage = stages_[number];
    const std::vector<Task*>& call = stage.running;
    const bool room = call.size() < stage.shape.max_batch;
    const auto cuts_in = [&](const Task* task) {
        const auto comes_after = [&](const Task* other) { return before(*other, *task); };
        if (!eligible(*task, now)) return false;
        if (!call.empty() && speculates(*call.front()) && has_spare_lead(*task->session, now)) return false;
        if (call.empty() || (room && may_share(*task, *call.front()))) return true;
        return !std::all_of(call.begin(), call.end(), comes_after);
    };
    return std::any_of(stage.ready.begin(), stage.ready.end(), cuts_in);
}

// The lead's limit as a time, so that start() and wake() compare one number with one rounding.
double Core::eligible_at(const Session& session) const {
    const bool limited = live_ > 1 && session.phase == Phase::kPlaying;
    return limited ? session.deadline - session.run_ahead : -kNever;
}

bool Core::eligible(const Task& task, double now) const {
    return !task.session->held && eligible_at(*task.session) <= now;
}

bool Core::speculates(const Task& task) { return task.session->phase == Phase::kSpeculating; }

bool Core::may_share(const Task& a, const Task& b) { return a.key == b.key && speculates(a) == speculates(b); }

bool Core::before(const Task& a, const Task& b) const {
    if (speculates(a) != speculates(b)) return speculates(b);
    if (order_ == Order::kArrival) return a.id < b.id;
    const auto rank = [this](const Task& task) {
        const Session& session = *task.session;
        const bool first = session.phase == Phase::kFirstChunk || session.phase == Phase::kSpeculating;
        const double due = session.phase == Phase::kIdle ? kNever : session.deadline;
        return std::make_tuple(!first, due, first ? session.turn : 0, stages_[task.stage].shape.priority, task.id);
    };
    return rank(a) < rank(b);
}

// Of the tasks that speculate, or of the others.
Core::Task* Core::most_urgent(double now, bool speculative) const {
    Task* best = nullptr;
    for (const Stage& stage : stages_) {
        if (stage.busy) continue;
        for (Task* task : stage.ready)
            if (speculates(*task) == speculative && eligible(*task, now) && (!best || before(*task, *best)))
                best = task;
    }
    return best;
}

std::vector<Core::Task*> Core::batch_of(Task* first, double now) const {
    const Stage& stage = stages_[first->stage];
    if (stage.shape.max_batch == 1) return {first};
    std::vector<Task*> batch;  // `first` comes out first: nothing at its stage is more urgent
    for (Task* task : stage.ready)
        if (may_share(*task, *first) && eligible(*task, now)) batch.push_back(task);
    const size_t size = std::min(batch.size(), stage.shape.max_batch);
    std::partial_sort(batch.begin(), batch.begin() + static_cast<std::ptrdiff_t>(size), batch.end(),
                      [this](const Task* a, const Task* b) { return before(*a, *b); });
    batch.resize(size);
    return batch;
}

void Core::begin_call(const std::vector<Task*>& batch) {
    Stage& stage = stages_[batch.front()->stage];
    for (Task* task : batch) {
        Session& session = *task->session;
        stage.ready.erase(std::find(stage.ready.begin(), stage.ready.end(), task));
        session.queues[task->stage].pop_front();
        offer_head(session, task->stage);
        --session.queued;
        ++session.running;
    }
    queued_ -= batch.size();
    running_ += batch.size();
    stage.running = batch;
    stage.busy = true;
    stage.speculative = speculates(*batch.front());
    if (stage.speculative) ++speculation_.calls;
    ++calls_;
}

// Whether a call runs for a first chunk, and none may start beside it, as calls share processors.
bool Core::first_chunk_runs_alone() const {
    if (order_ == Order::kArrival || width_ >= stages_.size()) return false;
    for (const Stage& stage : stages_)
        for (const Task* task : stage.running)
            if (task->session->phase == Phase::kFirstChunk) return true;
    return false;
}

std::vector<size_t> Core::start(double now) {
    std::vector<size_t> started;
    while (calls_ < width_ && !first_chunk_runs_alone()) {
        Task* first = others_wait(now) ? nullptr : most_urgent(now, true);
        if (!first) first = most_urgent(now, false);
        if (!first) break;
        begin_call(batch_of(first, now));
        started.push_back(first->stage);
    }
    note_delays(now);
    return started;
}

// Whether the session's tasks come after speculation.
bool Core::has_spare_lead(const Session& session, double now) const {
    return order_ == Order::kDeadline && session.phase == Phase::kPlaying && session.deadline - kSpareLead > now;
}

// Whether a task that comes before speculation could start, were its stage free.
bool Core::others_wait(double now) const {
    const auto waits = [&](const Task* task) {
        return !speculates(*task) && eligible(*task, now) && !has_spare_lead(*task->session, now);
    };
    return std::any_of(stages_.begin(), stages_.end(),
                       [&](const Stage& stage) { return std::any_of(stage.ready.begin(), stage.ready.end(), waits); });
}

// Counts what speculative calls keep from starting: at their own stage, or as one of those that fill the width.
void Core::note_delays(double now) {
    const auto speculative = [](const Stage& stage) { return stage.speculative; };
    if (std::none_of(stages_.begin(), stages_.end(), speculative)) return;
    const bool fill = calls_ == width_;
    for (const Stage& stage : stages_) {
        for (Task* task : stage.ready) {
            if (speculates(*task)) continue;
            if (!eligible(*task, now) || has_spare_lead(*task->session, now)) {
                task->delayed = false;
            } else if (!task->delayed && (stage.busy ? stage.speculative : fill)) {
                task->delayed = true;
                task->calls_before = speculation_.calls;
                ++speculation_.delayed;
            }
            if (task->delayed)
                speculation_.longest = std::max(speculation_.longest, 1 + speculation_.calls - task->calls_before);
        }
    }
}

double Core::wake(double now) const {
    double soonest = kNever;
    if (calls_ == width_) return soonest;
    for (const Stage& stage : stages_) {
        if (stage.busy) continue;
        for (const Task* task : stage.ready) {
            const double time = eligible_at(*task->session);
            if (!task->session->held && time > now) soonest = std::min(soonest, time);
        }
    }
    return soonest;
}

std::vector<Payload> Core::take_payloads(size_t stage) {
    std::vector<Task*> remaining;
    std::vector<Payload> payloads;
    for (Task* task : stages_[stage].running) {
        Session& session = *task->session;
        if (!session.cancelled) {
            remaining.push_back(task);
            payloads.push_back(std::move(task->payload));
            continue;
        }
        --session.running;
        --running_;
        retire(*task);
        update(session);
    }
    stages_[stage].running = std::move(remaining);
    return payloads;
}

std::vector<SessionId> Core::sessions(size_t stage) const {
    std::vector<SessionId> ids;
    for (const Task* task : stages_[stage].running) ids.push_back(task->session->id);
    return ids;
}

std::vector<Failure> Core::complete(size_t stage, const Outcome& outcome) {
    std::vector<Failure> failures;
    const std::vector<Task*> done = std::exchange(stages_[stage].running, {});
    const Errors errors = errors_of(outcome, done.size());
    stages_[stage].busy = stages_[stage].speculative = false;
    --calls_;
    running_ -= done.size();
    for (size_t i = 0; i < done.size(); ++i) {
        Task& task = *done[i];
        Session& session = *task.session;
        --session.running;
        const std::vector<TaskId> dependents = std::move(task.dependents);
        retire(task);
        if (!errors[i]) {
            for (const TaskId id : dependents) {
                const auto found = tasks_.find(id);
                if (found == tasks_.end()) continue;  // dropped by a cancellation
                Task& dependent = found->second;
                if (--dependent.waits_for == 0 && session.queues[dependent.stage].front() == &dependent)
                    offer_head(session, dependent.stage);
            }
        } else if (!session.cancelled) {
            if (session.failed) {
                ++session.reports;
                ++reports_;
                failures.push_back({session.id, session.failed, errors[i]});
            }
            drop_queued(session);
            session.cancelled = true;
        }
        update(session);
    }
    return failures;
}

void Core::reported(SessionId id) {
    Session& session = *find(id);  // a failure to report keeps it
    --session.reports;
    --reports_;
    update(session);
}

void Core::retire(Task& task) {
    if (task.payload) discarded_.push_back(std::move(task.payload));
    tasks_.erase(task.id);
}

// After every change of a session: is it still live, and is it still needed?
void Core::update(Session& session) {
    const bool live = !session.cancelled && session.phase != Phase::kSpeculating &&
                      (session.phase != Phase::kIdle || session.queued + session.running > 0);
    if (live != session.live) live_ += live ? 1 : -1;
    session.live = live;
    if (session.queued + session.running + session.reports > 0) return;
    any_drained_ = true;
    if (!session.closing) return;
    if (session.failed) discarded_.push_back(std::move(session.failed));
    sessions_.erase(session.id);
}

}  // namespace omni2
