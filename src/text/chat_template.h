// chat_template.h - what stands behind ChatTemplate of minillm/chat.h: a parsed program that can be run many times.
#pragma once

#include "minillm/chat.h"
#include "text/jinja_ast.h"

namespace minillm {

struct ChatTemplate::Impl {
  jinja::Program program;
};

}  // namespace minillm
