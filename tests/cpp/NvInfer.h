// As much of TensorRT's API as the packages' client uses, over a plan that holds the outputs as bytes.
// The file: a line for each tensor, the input first: name, type (0 float32, 3 int32, 5 uint8), bytes; an empty line; the
// bytes of the outputs. What it is given goes to the file "engine.input".
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cuda_runtime_api.h"

namespace nvinfer1 {
enum class DataType : std::int32_t { kFLOAT = 0, kHALF = 1, kINT8 = 2, kINT32 = 3, kBOOL = 4, kUINT8 = 5 };

class ILogger {
   public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    virtual void log(Severity severity, const char *text) noexcept = 0;
    virtual ~ILogger() = default;
};

struct Dims4 {
    std::int64_t sizes[4];
    Dims4(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) : sizes{a, b, c, d} {}
};

struct Tensor {
    DataType type;
    std::size_t size;
    std::string bytes;
};

class IExecutionContext {
   public:
    std::string input;
    std::map<std::string, Tensor> tensors;
    std::map<std::string, void *> places;
    bool is_shaped = false;

    bool setTensorAddress(const char *name, void *place) {
        places[name] = place;
        return place != nullptr && tensors.count(name);
    }
    bool setInputShape(const char *name, const Dims4 &shape) {
        is_shaped = name == input && shape.sizes[0] == 1;
        return is_shaped;
    }
    bool enqueueV3(cudaStream_t) {
        if (!is_shaped || places.size() != tensors.size()) return false;
        std::ofstream("engine.input", std::ios::binary)
            .write(static_cast<const char *>(places[input]), std::streamsize(tensors[input].size));
        for (auto &[name, tensor] : tensors)
            if (name != input) std::memcpy(places[name], tensor.bytes.data(), tensor.size);
        return true;
    }
};

class ICudaEngine {
   public:
    IExecutionContext made;
    DataType getTensorDataType(const char *name) const { return made.tensors.at(name).type; }
    IExecutionContext *createExecutionContext() { return new IExecutionContext(made); }
};

class IRuntime {
   public:
    ILogger &logger;
    ICudaEngine *deserializeCudaEngine(const void *data, std::size_t size) {
        std::istringstream file(std::string(static_cast<const char *>(data), size));
        auto *engine = new ICudaEngine;
        std::vector<std::string> order;
        for (std::string line, name; std::getline(file, line) && !line.empty();) {
            std::istringstream words(line);
            int type = 0;
            std::size_t bytes = 0;
            if (!(words >> name >> type >> bytes)) {
                logger.log(ILogger::Severity::kERROR, "magicTag does not match");
                delete engine;
                return nullptr;
            }
            order.push_back(name);
            engine->made.tensors[name] = {static_cast<DataType>(type), bytes, ""};
        }
        engine->made.input = order.at(0);
        for (std::size_t i = 1; i < order.size(); ++i) {
            Tensor &tensor = engine->made.tensors[order[i]];
            tensor.bytes.resize(tensor.size);
            file.read(&tensor.bytes[0], std::streamsize(tensor.size));
        }
        return engine;
    }
};

inline IRuntime *createInferRuntime(ILogger &logger) { return new IRuntime{logger}; }
}  // namespace nvinfer1
