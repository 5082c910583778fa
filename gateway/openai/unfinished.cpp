// Published routes that are not built yet: an honest 501 rather than a 404, because the path is
// right and the answer will come with a later version.
#include "gateway/openai/endpoint.hpp"

#include <fmt/format.h>

namespace tandem::gateway::openai {

http_handler not_built_yet(std::string_view name) {
  return answering([name = std::string(name)](const http_request&,
                                              const std::shared_ptr<responder>&) {
    return result<void>(error{
        errc::unsupported,
        fmt::format("{} is not built yet in this version of tandem; /openapi.json lists what is.",
                    name),
        ""});
  });
}

}  // namespace tandem::gateway::openai
