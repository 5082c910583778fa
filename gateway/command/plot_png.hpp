// A loss curve as a picture, drawn by cairo.
#pragma once

#include "gateway/command/loss_curve.hpp"

#include <filesystem>
#include <string_view>

namespace tandem::gateway::command {

// Writes the file, or says why it cannot; errc::unsupported in a build without cairo. The curve is
// not empty.
result<void> plot_as_png(const loss_curve& curve, std::string_view title,
                         const std::filesystem::path& file);

}  // namespace tandem::gateway::command
