// The two kinds of model on disk. `model_source::open` chooses.
#pragma once

#include "runtime/model/load_plan.hpp"
#include "runtime/model/weights.hpp"
#include "runtime/result.hpp"

#include <filesystem>
#include <memory>
#include <string>

namespace tandem::model {

// What both kinds share: a config, a set of tensors, and the plan that joins them.
class tensor_source : public model_source {
 public:
  const model_config& config() const override { return config_; }
  const generation_defaults& defaults() const override { return defaults_; }
  std::uint64_t file_bytes() const override { return file_bytes_; }
  std::string name() const override { return name_; }
  result<load_forecast> forecast(const kernels::backend& device, load_format format,
                                 tensor_rank place) const override;
  result<std::shared_ptr<const weights>> load(kernels::backend& device, memory::ledger& book,
                                              load_format format,
                                              const std::function<void(double)>& progress,
                                              tensor_rank place) const override;
  result<load_plan> plan(const kernels::backend& device, load_format format, tensor_rank place,
                         table_rows embedding = table_rows::whole) const;

 protected:
  model_config config_;
  generation_defaults defaults_;
  tensor_set tensors_;
  std::uint64_t file_bytes_ = 0;
  std::string name_;
};

result<std::shared_ptr<const model_source>> open_gguf_source(const std::filesystem::path& path);
result<std::shared_ptr<const model_source>> open_folder_source(const std::filesystem::path& folder);

// A small text file, whole; refused above `most` bytes.
result<std::string> read_text(const std::filesystem::path& path, std::uint64_t most);

}  // namespace tandem::model
