// From logits to labels.
#pragma once

#include <cmath>
#include <cstdio>
#include <map>
#include <numeric>

#include "picture.hpp"

using Outputs = std::map<std::string, std::vector<float>>;

// Print the three most probable labels with their probabilities, a line each, separated by a tab.
inline void print_answer(const Outputs &outputs, const Input &) {
    const std::vector<float> &logits = outputs.at("logits");
    std::vector<std::size_t> order(logits.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double(logit) - logits[order[0]]);
    for (std::size_t i = 0; i < std::min<std::size_t>(3, order.size()); ++i)
        std::printf("%s\t%.6f\n", package::LABELS[order[i]].c_str(),
                    std::exp(double(logits[order[i]]) - logits[order[0]]) / sum);
}
