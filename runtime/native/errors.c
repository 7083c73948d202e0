/* errors.c - codes and messages. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "package.h"

const char *bsx_error_name(int code) {
    static const char *const names[] = {
        "NONE",     "ARGUMENT", "MEMORY", "FILE",        "NO_PACKAGE",          "VERSION",
        "MANIFEST", "DAMAGED",  "BLOB",   "ONNXRUNTIME", "ONNXRUNTIME_VERSION",
    };
    const int known = (int)(sizeof names / sizeof names[0]);
    return code >= 0 && code < known ? names[code] : "UNKNOWN";
}

/* The length of a text without a UTF-8 character that was cut. */
static size_t whole_characters(const char *text, size_t length) {
    size_t start = length;
    while (start > 0 && length - start < 4 && ((unsigned char)text[start - 1] & 0xC0) == 0x80) start--;
    if (start == 0 || (unsigned char)text[start - 1] < 0xC0) return length;
    const unsigned char first = (unsigned char)text[start - 1];
    const size_t wanted = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    return length - (start - 1) < wanted ? start - 1 : length;
}

bsx_error_code bsx_fail(bsx_error *error, bsx_error_code code, const char *format, ...) {
    if (error == NULL) return code;
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(error->message, sizeof error->message, format, arguments);
    va_end(arguments);
    if (length < 0) error->message[0] = 0;
    error->message[whole_characters(error->message, strlen(error->message))] = 0;
    error->code = code;
    error->status = BSX_OK;
    return code;
}

bsx_error_code bsx_succeed(bsx_error *error) {
    if (error) memset(error, 0, sizeof *error);
    return BSX_ERROR_NONE;
}

const char *bsx_print(const char *text, size_t size, char out[BSX_PRINTABLE_BYTES]) {
    size_t length = 0, i = 0;
    for (; i < size && length + 8 < BSX_PRINTABLE_BYTES; i++) {
        const unsigned char byte = (unsigned char)text[i];
        /* U+0080 to U+009F are control characters too: 0xC2 and a byte below 0xA0. */
        const unsigned char next = i + 1 < size ? (unsigned char)text[i + 1] : 0xFF;
        const bool two = byte == 0xC2 && next < 0xA0;
        if (byte < 0x20 || byte == 0x7F || two) {
            length += (size_t)snprintf(out + length, BSX_PRINTABLE_BYTES - length, "\\x%02x", two ? next : byte);
            i += two;
        } else {
            out[length++] = (char)byte;
        }
    }
    if (i < size) {
        length = whole_characters(out, length);
        memcpy(out + length, "...", 3);
        length += 3;
    }
    out[length] = 0;
    return out;
}

const char *bsx_print_name(const char *name, char out[BSX_PRINTABLE_BYTES]) { return bsx_print(name, strlen(name), out); }
