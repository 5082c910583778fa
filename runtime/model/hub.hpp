// `tandem pull REPO[:FILE]`: a model's files from a Hugging Face hub address onto this disk.
// A file appears under its name only when it is whole and its checksum is right; what was fetched
// before an interruption is kept beside it as FILE.part and continued.
#pragma once

#include "runtime/result.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace tandem::model {

struct hub_progress {
  std::string file;               // being fetched now
  std::uint64_t bytes_done = 0;   // of all files of this pull, those already here included
  std::uint64_t bytes_total = 0;  // 0 where the hub does not say
  std::size_t files_done = 0;
  std::size_t files = 0;
};

struct hub_options {
  std::string endpoint = "https://huggingface.co";
  std::string token;  // sent to the endpoint's own host only
  std::string revision = "main";
  std::filesystem::path models;  // files go to models/REPO/
  int attempts = 5;              // of a request in a row that bring nothing
  // Waits before another attempt; unset: sleeps.
  std::function<void(std::chrono::milliseconds)> wait;
  std::function<void(const hub_progress&)> progress;
  std::function<bool()> cancelled;  // asked a few times a second

  // $HF_ENDPOINT and $HF_TOKEN over the defaults.
  static hub_options from_environment(std::filesystem::path models);
};

// `what` is REPO or REPO:FILE; FILE is a file's name, or the end of a GGUF's ("Q4_K_M"). Without
// FILE: the repository's safetensors with what belongs to them, else its GGUF, Q4_K_M first.
// Gives the folder of a safetensors model, or the path of the GGUF (the first part of a split one).
result<std::filesystem::path> pull(std::string_view what, const hub_options& options);

}  // namespace tandem::model
