// The samplers, each linear in the vocabulary: no full sort, no copy of the logits.
#include "sampling/sampling.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

namespace omni2 {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr uint32_t kLanes = 16;  // independent comparisons per step: one or more vectors on every machine

struct Candidate {
    uint32_t id;
    float score;
};

// Greatest of count values, minus infinity where none is above it.
float maximum(const float* values, uint32_t count) {
    float lanes[kLanes];
    std::fill_n(lanes, kLanes, -kInfinity);
    uint32_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        for (uint32_t lane = 0; lane < kLanes; ++lane)
            lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    float best = -kInfinity;
    for (; i < count; ++i) best = values[i] > best ? values[i] : best;
    for (float lane : lanes) best = lane > best ? lane : best;
    return best;
}

// The k-th greatest score, or minus infinity where fewer than k scores are above it; k >= 1.
float kth_greatest(const Scores& scores, uint32_t k) {
    const size_t capacity = std::max<size_t>(2 * static_cast<size_t>(k), 1024);
    std::vector<float> best;  // values that may still be among the k greatest; those equal to `threshold` are dropped
    best.reserve(std::min<size_t>(capacity, scores.size()));
    float threshold = -kInfinity;
    const auto shrink = [&] {
        std::nth_element(best.begin(), best.begin() + (k - 1), best.end(), std::greater<float>());
        best.resize(k);
        threshold = best[k - 1];
    };
    scores.each_run([&](uint32_t, const float* values, uint32_t count) {
        for (uint32_t i = 0; i < count; ++i) {
            if (!(values[i] > threshold)) continue;
            best.push_back(values[i]);
            if (best.size() == capacity) shrink();
        }
    });
    if (best.size() < k) return -kInfinity;
    shrink();
    return threshold;
}

// Scores not below the threshold and above minus infinity, in ascending order of ids.
std::vector<Candidate> collect(const Scores& scores, float threshold) {
    std::vector<Candidate> kept;
    const float floor = std::max(threshold, std::numeric_limits<float>::lowest());
    scores.each_run([&](uint32_t first, const float* values, uint32_t count) {
        for (uint32_t i = 0; i < count; ++i)
            if (values[i] >= floor) kept.push_back({first + i, values[i]});
    });
    return kept;
}

// Replaces each score by its distance from the greatest in units of the temperature: 0 at most.
void normalise(std::vector<Candidate>& kept, float temperature) {
    float peak = -kInfinity;
    for (const Candidate& candidate : kept) peak = std::max(peak, candidate.score);
    for (Candidate& candidate : kept) candidate.score = below_peak(candidate.score, peak, temperature);
}

// Probability relative to the likeliest token's, in units of 2^-32: integers add up to the same in any order.
uint64_t mass(const Candidate& candidate) { return static_cast<uint64_t>(exponential(candidate.score) * 0x1p32f); }

// Keeps the fewest candidates, likeliest first, that hold top_p of the mass. The border is found by halving: each round
// partitions what is undecided and sums its better half, so the work is linear on average.
void keep_nucleus(std::vector<Candidate>& kept, double top_p) {
    uint64_t total = 0;
    for (const Candidate& candidate : kept) total += mass(candidate);
    const double wanted = top_p * static_cast<double>(total);
    const auto likelier = [](const Candidate& a, const Candidate& b) {
        return a.score > b.score || (a.score == b.score && a.id < b.id);
    };
    uint64_t held = 0;  // mass of kept[0, begin)
    size_t begin = 0, end = kept.size();
    while (end - begin > 1) {
        const size_t middle = begin + (end - begin) / 2;
        std::nth_element(kept.begin() + begin, kept.begin() + middle, kept.begin() + end, likelier);
        uint64_t better = held;
        for (size_t i = begin; i < middle; ++i) better += mass(kept[i]);
        if (static_cast<double>(better) >= wanted) {
            end = middle;
        } else {
            held = better;
            begin = middle;
        }
    }
    kept.resize(end);
}

// Id of the winner of the Gumbel race, the lowest of equals.
uint32_t race(const std::vector<Candidate>& kept, const DrawKey& key) {
    float best = -kInfinity;
    uint32_t winner = kept.front().id;
    uint32_t block = 0;
    Words words = draw_words(key, block);
    for (const Candidate& candidate : kept) {
        if (candidate.id / 4 != block) {  // neighbours share a block
            block = candidate.id / 4;
            words = draw_words(key, block);
        }
        const float time = race_time(candidate.score, word_of(words, candidate.id % 4));
        if (time > best || (time == best && candidate.id < winner)) {
            best = time;
            winner = candidate.id;
        }
    }
    return winner;
}

}  // namespace

Scores::Scores(const float* logits, uint32_t size, const int64_t* generated, size_t generated_count, float penalty)
    : logits_(logits), size_(size) {
    std::vector<int64_t> ids(generated, generated + generated_count);
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    for (int64_t id : ids)
        if (id < 0 || id >= static_cast<int64_t>(size))
            throw std::invalid_argument("generated id " + std::to_string(id) + " is outside the vocabulary of " +
                                        std::to_string(size) + " tokens");
    if (penalty == 1.0f) return;
    changed_.reserve(ids.size());
    for (int64_t id : ids) changed_.push_back({static_cast<uint32_t>(id), penalised(logits[id], penalty)});
}

uint32_t argmax(const Scores& scores) {
    float best = -kInfinity;
    uint32_t winner = scores.size();
    scores.each_run([&](uint32_t first, const float* values, uint32_t count) {
        const float candidate = maximum(values, count);
        if (winner < scores.size() && !(candidate > best)) return;
        const float* found = std::find(values, values + count, candidate);
        if (found == values + count) return;  // nothing here but NaN
        best = candidate;
        winner = first + static_cast<uint32_t>(found - values);
    });
    if (winner == scores.size()) throw NoCandidateError("every logit is NaN: there is no token to choose");
    return winner;
}

uint32_t sample(const Scores& scores, const SampleSettings& settings, const DrawKey& key) {
    const bool limited = settings.top_k > 0 && settings.top_k < scores.size();
    std::vector<Candidate> kept = collect(scores, limited ? kth_greatest(scores, settings.top_k) : -kInfinity);
    if (kept.empty()) throw NoCandidateError("every logit is NaN or minus infinity: there is no token to draw");
    normalise(kept, settings.temperature);
    if (settings.top_p < 1.0) keep_nucleus(kept, settings.top_p);
    return race(kept, key);
}

}  // namespace omni2
