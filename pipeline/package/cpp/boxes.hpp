// From a detector's outputs to boxes on the picture.
#pragma once

#include <cstdio>
#include <map>

#include "picture.hpp"

using Outputs = std::map<std::string, std::vector<float>>;

// Print class, its id in the data (its number where that has none), score and x1 y1 x2 y2, separated by tabs.
inline void print_box(std::size_t number, float score, const float *box, const Input &input) {
    const auto place = [&](int i) {
        return std::clamp(box[i] / input.scale, 0.0, double(i % 2 ? input.height : input.width));
    };
    const long id = package::IDS.empty() ? long(number) : package::IDS.at(number);
    std::printf("%s\t%ld\t%.6f\t%.2f\t%.2f\t%.2f\t%.2f\n", package::LABELS.at(number).c_str(), id, double(score),
                place(0), place(1), place(2), place(3));
}

// Intersection over union.
inline float overlap(const float *a, const float *b) {
    const float width = std::max(0.0f, std::min(a[2], b[2]) - std::max(a[0], b[0]));
    const float height = std::max(0.0f, std::min(a[3], b[3]) - std::max(a[1], b[1]));
    const float both = width * height, areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]);
    return areas > both ? both / (areas - both) : 0.0f;
}

// Of files that return all places (nms: none): drop what overlaps a surer box of its class.
inline void print_without_overlaps(const std::vector<float> &boxes, const std::vector<float> &scores,
                                   const Input &input) {
    using namespace package;
    const std::size_t kinds = LABELS.size();
    std::vector<std::size_t> above, kept;  // places times classes
    for (std::size_t i = 0; i < scores.size(); ++i)
        if (scores[i] > SCORE_THRESHOLD) above.push_back(i);
    std::stable_sort(above.begin(), above.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
    if (above.size() > CANDIDATES) above.resize(CANDIDATES);
    for (const std::size_t i : above) {
        const bool is_new = std::none_of(kept.begin(), kept.end(), [&](std::size_t j) {
            return i % kinds == j % kinds && overlap(&boxes[i / kinds * 4], &boxes[j / kinds * 4]) > IOU_THRESHOLD;
        });
        if (is_new) kept.push_back(i);
        if (kept.size() == MAX_DETECTIONS) break;
    }
    for (const std::size_t i : kept) print_box(i % kinds, scores[i], &boxes[i / kinds * 4], input);
}

// Print a line for each detection, the surest first; boxes are in the pixels of the picture itself.
inline void print_answer(const Outputs &outputs, const Input &input) {
    if (!outputs.count("num_detections")) {
        print_without_overlaps(outputs.at("boxes"), outputs.at("scores"), input);
        return;
    }
    const std::vector<float> &boxes = outputs.at("detection_boxes"), &scores = outputs.at("detection_scores");
    const std::vector<float> &classes = outputs.at("detection_classes");
    const std::size_t count = std::size_t(outputs.at("num_detections").at(0));  // what follows fills the lists up
    for (std::size_t i = 0; i < count; ++i) print_box(std::size_t(classes.at(i)), scores.at(i), &boxes[4 * i], input);
}
