// families.cpp - looking a family up by name.
#include "model/families.h"

#include <string>

#include "io/printable.h"
#include "minillm/error.h"

namespace minillm {

const Family& family_of(std::string_view architecture) {
  std::string known;
  for (const Family& family : kFamilies) {
    if (family.name == architecture) return family;
    (known += known.empty() ? "" : ", ") += family.name;
  }
  throw Error(ErrorCode::kUnsupported, "architecture ", printable(architecture), ": expected one of ", known);
}

}  // namespace minillm
