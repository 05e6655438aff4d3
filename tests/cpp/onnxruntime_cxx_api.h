// As much of ONNX Runtime's C++ API as the packages' client uses, over a file that holds the outputs as bytes.
// What it is given goes to the file of the model's name with .input behind it.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

enum OrtLoggingLevel { ORT_LOGGING_LEVEL_WARNING = 2 };
enum OrtAllocatorType { OrtArenaAllocator = 1 };
enum OrtMemType { OrtMemTypeDefault = 0 };
enum ONNXTensorElementDataType { ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT = 1, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 = 2 };

namespace Ort {
struct Env {
    Env(OrtLoggingLevel, const char *) {
        if (!std::getenv("ORT_DISABLE_TELEMETRY")) throw std::runtime_error("events are sent");
    }
};
struct SessionOptions {};
struct RunOptions {};
struct MemoryInfo {
    static MemoryInfo CreateCpu(OrtAllocatorType, OrtMemType) { return {}; }
};
struct Value {
    std::vector<std::uint8_t> bytes;
    static Value CreateTensor(const MemoryInfo &, void *data, std::size_t size, const std::int64_t *shape,
                              std::size_t rank, ONNXTensorElementDataType type) {
        std::size_t expected = type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? 4 : 1;
        for (std::size_t i = 0; i < rank; ++i) expected *= std::size_t(shape[i]);
        if (expected != size) throw std::runtime_error("the shape does not fit the bytes");
        const auto *first = static_cast<const std::uint8_t *>(data);
        return {{first, first + size}};
    }
    template <typename T>
    const T *GetTensorData() const {
        return reinterpret_cast<const T *>(bytes.data());
    }
};
struct Session {
    std::string path;
    Session(const Env &, const char *model, const SessionOptions &) : path(model) {
        if (!std::ifstream(model)) throw std::runtime_error("Load model failed: file doesn't exist");
    }
    // The file holds lines of name and number of bytes, an empty line, and all the bytes.
    std::vector<Value> Run(const RunOptions &, const char *const *, const Value *inputs, std::size_t,
                           const char *const *names, std::size_t count) const {
        std::ofstream(path + ".input", std::ios::binary)
            .write(reinterpret_cast<const char *>(inputs->bytes.data()), std::streamsize(inputs->bytes.size()));
        std::ifstream file(path, std::ios::binary);
        std::vector<std::pair<std::string, std::size_t>> sizes;
        for (std::string line; std::getline(file, line) && !line.empty();) {
            const std::size_t space = line.find(' ');
            sizes.emplace_back(line.substr(0, space), std::stoul(line.substr(space + 1)));
        }
        std::vector<Value> found(count);
        for (const auto &[name, size] : sizes) {
            std::vector<std::uint8_t> bytes(size);
            file.read(reinterpret_cast<char *>(bytes.data()), std::streamsize(size));
            for (std::size_t i = 0; i < count; ++i)
                if (name == names[i]) found[i].bytes = bytes;
        }
        return found;
    }
};
}  // namespace Ort
