// The handlers behind routes.hpp.
#pragma once

#include "gateway/engine.hpp"
#include "gateway/http.hpp"

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem::gateway::pages {

// 200 while the process is worth keeping; 503 once the engine has failed.
http_handler live(std::shared_ptr<engine> door);
// 200 when requests are taken; else 503 and why.
http_handler ready(std::shared_ptr<engine> door);
http_handler version_page();
http_handler metrics(std::shared_ptr<engine> door, std::function<std::string()> server_metrics);
http_handler cluster(std::shared_ptr<engine> door);
http_handler front_page();
// A body that never changes.
http_handler constant_json(std::string body);

// The OpenAPI 3.1 document of these routes.
std::string openapi(const std::vector<route>& routes);

// gateway/pages/page.html with its scripts in it.
std::string_view page_html();

}  // namespace tandem::gateway::pages
