// whole_file.h - the steps by which a file appears under its name only when it is whole: written under another name, flushed to the
// disk, renamed, and the folder flushed. Power cut or kill at any time: the old file or the new one, never half.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace minillm {

/// False if not all of `bytes` could be written; errno says why.
bool write_all(int fd, std::span<const std::byte> bytes) noexcept;

/// Closes `fd`, the finished file `part`, and gives it the name `path`. Null, or what could not be done; errno says why.
const char* publish_file(int fd, const std::string& part, const std::string& path);

}  // namespace minillm
