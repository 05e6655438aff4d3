// From a picture in a PPM file to the input of the package's files, resized as Pillow resizes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "package.hpp"

struct Picture {
    int width = 0, height = 0;
    std::vector<std::uint8_t> pixels;  // height x width x 3, RGB

    Picture() = default;
    Picture(int w, int h) : width(w), height(h), pixels(std::size_t(w) * std::size_t(h) * 3, package::PADDING) {}
};

// Read a binary PPM (P6) of 8 bits a channel. What makes it of your pictures must turn them upright, as EXIF says.
inline Picture read_ppm(const std::string &path) {
    constexpr int LONGEST = 65500;
    std::ifstream file(path, std::ios::binary);
    const auto number = [&file] {
        int value = 0;
        while ((file >> std::ws).peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
        file >> value;
        return value;
    };
    char kind[2] = {};
    if (!file.read(kind, 2)) throw std::runtime_error(path + ": cannot be read, or is empty");
    if (kind[0] != 'P' || kind[1] != '6') throw std::runtime_error(path + ": not a binary PPM file (P6)");
    const int width = number(), height = number(), largest = number();
    if (std::min(width, height) < 1 || std::max(width, height) > LONGEST || largest != 255)
        throw std::runtime_error(path + ": needed are 8 bits a channel, and sides of 1 to 65500 pixels");
    file.get();  // the one white space before the pixels
    Picture picture(width, height);
    if (!file.read(reinterpret_cast<char *>(picture.pixels.data()), std::streamsize(picture.pixels.size())))
        throw std::runtime_error(path + ": ends before its last pixel");
    return picture;
}

// Resize one side, `lines` times: Keys' cubic (a = -0.5), antialiased, with weights of 22 binary places.
// `step` lies between neighbours along the side, `from_line` and `to_line` between the lines.
inline void resize_side(const std::uint8_t *from, int from_length, std::size_t from_line, std::uint8_t *to,
                        int to_length, std::size_t to_line, int lines, std::size_t step) {
    constexpr int PLACES = 22;
    const auto cubic = [](double x) {
        x = std::fabs(x);
        if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
        return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0.0;
    };
    const double scale = double(from_length) / to_length, stretch = std::max(scale, 1.0);
    std::vector<double> exact;
    std::vector<int> weights;
    for (int i = 0; i < to_length; ++i) {
        const double center = (i + 0.5) * scale, support = 2 * stretch;
        const int first = std::max(0, int(center - support + 0.5));
        const int last = std::min(from_length, int(center + support + 0.5));
        double sum = 0;
        exact.clear();
        weights.clear();
        for (int j = first; j < last; ++j) {
            exact.push_back(cubic((j - center + 0.5) * (1 / stretch)));
            sum += exact.back();
        }
        for (const double weight : exact)
            weights.push_back(int((weight < 0 ? -0.5 : 0.5) + weight / sum * (1 << PLACES)));
        for (int line = 0; line < lines; ++line)
            for (std::size_t channel = 0; channel < 3; ++channel) {
                const std::uint8_t *taken = from + std::size_t(line) * from_line + std::size_t(first) * step + channel;
                int value = 1 << (PLACES - 1);
                for (std::size_t j = 0; j < weights.size(); ++j) value += taken[j * step] * weights[j];
                to[std::size_t(line) * to_line + std::size_t(i) * step + channel] =
                    std::uint8_t(std::clamp(value >> PLACES, 0, 255));
            }
    }
}

// Columns first, as Pillow does; of tall images its versions from 13 on may begin with the rows, which changes some
// values by 1.
inline Picture resized(Picture picture, int width, int height) {
    if (width != picture.width) {
        Picture found(width, picture.height);
        resize_side(picture.pixels.data(), picture.width, std::size_t(picture.width) * 3, found.pixels.data(), width,
                    std::size_t(width) * 3, picture.height, 3);
        picture = std::move(found);
    }
    if (height != picture.height) {
        Picture found(width, height);
        resize_side(picture.pixels.data(), picture.height, 3, found.pixels.data(), height, 3, width,
                    std::size_t(width) * 3);
        picture = std::move(found);
    }
    return picture;
}

// What a network takes of a picture: 1 x 3 x HEIGHT x WIDTH.
struct Input {
    int width = 0, height = 0;        // of the picture
    double scale = 1;                 // pixels of the input that a pixel of the picture became
    std::vector<std::uint8_t> bytes;  // of the tensor: uint8, or float32 in [0, 1]
};

inline Input prepare(const Picture &picture) {
    using namespace package;
    const double across = double(WIDTH) / picture.width, down = double(HEIGHT) / picture.height;
    const double scale = COVERS ? std::max(across, down) : std::min(across, down);
    // Halves go to the even number, in the default mode of rounding.
    const int width = std::max(COVERS ? WIDTH : 1, int(std::nearbyint(picture.width * scale)));
    const int height = std::max(COVERS ? HEIGHT : 1, int(std::nearbyint(picture.height * scale)));
    const Picture fitted = resized(picture, width, height);
    Picture canvas(WIDTH, HEIGHT);  // what the picture does not fill keeps the padding
    const int left = (std::max(width, WIDTH) - WIDTH) / 2, top = (std::max(height, HEIGHT) - HEIGHT) / 2;
    for (int row = 0; row < std::min(height, HEIGHT); ++row)
        std::memcpy(&canvas.pixels[std::size_t(row) * WIDTH * 3],
                    &fitted.pixels[(std::size_t(row + top) * std::size_t(width) + std::size_t(left)) * 3],
                    std::size_t(std::min(width, WIDTH)) * 3);
    const std::size_t size = std::size_t(WIDTH) * HEIGHT, width_of_value = TAKES_BYTES ? 1 : sizeof(float);
    Input input{picture.width, picture.height, scale, std::vector<std::uint8_t>(3 * size * width_of_value)};
    for (std::size_t i = 0; i < 3 * size; ++i) {
        const std::uint8_t value = canvas.pixels[i % size * 3 + i / size];  // from H x W x 3 to 3 x H x W
        const float share = float(value) / 255;
        if (TAKES_BYTES)
            input.bytes[i] = value;
        else
            std::memcpy(&input.bytes[i * sizeof(float)], &share, sizeof(float));
    }
    return input;
}
