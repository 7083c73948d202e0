/* json.c - check a JSON text, and read it in place. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

#include "inline.h"

#define NO_POINT UINT32_MAX /* beside all code points */

static inline bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* ---- one character of a string ---- */

static int hex_digit(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The number of four hexadecimal digits; NO_POINT: they are none. */
static uint32_t hex4(const char *p) {
    uint32_t x = 0;
    for (unsigned i = 0; i < 4; i++) {
        const int digit = hex_digit(p[i]);
        if (digit < 0) return NO_POINT;
        x = x << 4 | (uint32_t)digit;
    }
    return x;
}

/* The code point of an escape, NO_POINT if it is none; *at is the character after the backslash, and then the one after
 * the escape. Looks no further than to the first wrong character: the string's closing quote, which must be known to be
 * there, ends it. */
static uint32_t read_escape(const char **at) {
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *p = *at;
    *at += 1;
    if (*p != 'u') {
        const char *found = *p ? strchr(names, *p) : NULL;
        return found ? (uint32_t)meant[found - names] : NO_POINT;
    }
    const uint32_t high = hex4(p + 1);
    if (high == NO_POINT || (high >= 0xDC00 && high <= 0xDFFF)) return NO_POINT;
    *at += 4;
    if (high < 0xD800 || high > 0xDBFF) return high;
    const uint32_t low = p[5] == '\\' && p[6] == 'u' ? hex4(p + 7) : NO_POINT;
    if (low < 0xDC00 || low > 0xDFFF) return NO_POINT;
    *at += 6;
    return 0x10000 + ((high - 0xD800) << 10 | (low - 0xDC00));
}

/* The code point of a UTF-8 character of two bytes or more, NO_POINT if it is none; *at is its start, and then its end. */
static uint32_t read_utf8(const char **at) {
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)*at;
    const unsigned length = p[0] < 0xC0 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF8 ? 4 : 0;
    if (length == 0) return NO_POINT;
    uint32_t point = p[0] & (0x7FU >> length);
    for (unsigned i = 1; i < length; i++) {
        if (p[i] >> 6 != 2) return NO_POINT; /* the closing quote at the latest */
        point = point << 6 | (p[i] & 0x3FU);
    }
    if (point < least[length] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return NO_POINT;
    *at += length;
    return point;
}

/* The next character of a string before its closing quote; NO_POINT: there may be none such. */
NEVER_INLINE uint32_t read_character(const char **at) {
    const unsigned char first = (unsigned char)**at;
    if (first >= 0x80) return read_utf8(at);
    *at += 1;
    if (first == '\\') return read_escape(at);
    return first >= 0x20 ? first : NO_POINT;
}

NEVER_INLINE size_t write_utf8(uint32_t point, char out[4]) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    const size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, point >>= 6) out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)((0xF00U >> length & 0xFF) | point);
    return length;
}

/* ---- checking ---- */

typedef struct checker {
    const char *at, *end;
    const char **keys; /* of the objects that are open, the innermost one's last */
    size_t key_count, key_room;
    unsigned depth;
    bool no_memory;
} checker;

NEVER_INLINE void skip_space(checker *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r')) c->at++;
}

static bool take(checker *c, char wanted) {
    if (c->at == c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

static bool take_word(checker *c, const char *word) {
    const size_t length = strlen(word);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) return false;
    c->at += length;
    return true;
}

static bool has_closing_quote(const char *at, const char *end) {
    for (; at < end && *at != '"'; at++) {
        if (*at == '\\' && ++at == end) return false;
    }
    return at < end;
}

NEVER_INLINE bool check_string(checker *c) {
    if (!take(c, '"') || !has_closing_quote(c->at, c->end)) return false;
    while (*c->at != '"') {
        if (read_character(&c->at) == NO_POINT) return false;
    }
    return take(c, '"');
}

static size_t take_digits(checker *c) {
    const char *start = c->at;
    while (c->at < c->end && is_digit(*c->at)) c->at++;
    return (size_t)(c->at - start);
}

static bool check_number(checker *c) {
    take(c, '-');
    const bool zero = c->at < c->end && *c->at == '0';
    const size_t digits = take_digits(c);
    if (digits == 0 || (zero && digits > 1)) return false;
    const bool point = take(c, '.');
    if (point && !take_digits(c)) return false;
    const bool exponent = take(c, 'e') || take(c, 'E');
    if (exponent) {
        if (!take(c, '+')) take(c, '-');
        if (!take_digits(c)) return false;
    }
    return point || exponent || digits <= BSX_JSON_DIGITS;
}

/* Of two keys, for qsort. */
static int compare_keys(const void *first, const void *second) {
    const char *a = *(const char *const *)first + 1, *b = *(const char *const *)second + 1;
    while (*a != '"' && *b != '"') {
        const uint32_t of_a = read_character(&a), of_b = read_character(&b);
        if (of_a != of_b) return of_a < of_b ? -1 : 1;
    }
    return (*a != '"') - (*b != '"');
}

static bool remember_key(checker *c) {
    if (c->key_count == c->key_room) {
        const size_t room = c->key_room ? 2 * c->key_room : 64;
        const char **keys = realloc((void *)c->keys, room * sizeof *keys);
        if (keys == NULL) {
            c->no_memory = true;
            return false;
        }
        c->keys = keys;
        c->key_room = room;
    }
    c->keys[c->key_count++] = c->at;
    return true;
}

/* Are the keys from `first` on all different? They are forgotten. */
static bool keys_differ(checker *c, size_t first) {
    const char **keys = c->keys + first;
    const size_t count = c->key_count - first;
    c->key_count = first;
    if (count > 1) qsort((void *)keys, count, sizeof *keys, compare_keys);
    for (size_t i = 1; i < count; i++) {
        if (compare_keys(&keys[i - 1], &keys[i]) == 0) return false;
    }
    return true;
}

static bool check_value(checker *c);

static bool check_key(checker *c) {
    skip_space(c);
    if (!remember_key(c) || !check_string(c)) return false;
    skip_space(c);
    return take(c, ':');
}

static bool check_container(checker *c, char close) {
    const size_t first_key = c->key_count;
    const bool object = close == '}';
    c->at++;
    skip_space(c);
    if (take(c, close)) return true;
    do {
        if ((object && !check_key(c)) || !check_value(c)) return false;
    } while (take(c, ','));
    return take(c, close) && (!object || keys_differ(c, first_key));
}

/* A value and the space around it. */
static bool check_value(checker *c) {
    bool sound;
    skip_space(c);
    if (c->at == c->end) return false;
    switch (*c->at) {
    case '{':
    case '[':
        if (c->depth == BSX_JSON_DEPTH) return false;
        c->depth++;
        sound = check_container(c, *c->at == '{' ? '}' : ']');
        c->depth--;
        break;
    case '"': sound = check_string(c); break;
    case 'n': sound = take_word(c, "null"); break;
    case 't': sound = take_word(c, "true"); break;
    case 'f': sound = take_word(c, "false"); break;
    default: sound = check_number(c);
    }
    skip_space(c);
    return sound;
}

bsx_json_verdict bsx_json_check(const char *content, size_t size, const char **text) {
    checker c = {0};
    c.at = content;
    c.end = content + size;
    skip_space(&c);
    *text = c.at;
    const bool sound = check_value(&c) && c.at == c.end;
    free((void *)c.keys);
    return c.no_memory ? BSX_JSON_NO_MEMORY : sound ? BSX_JSON_SOUND : BSX_JSON_BROKEN;
}

/* ---- reading what has been checked ---- */

static const char *past_space(const char *p) {
    while (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') p++;
    return p;
}

static const char *past_string(const char *p) {
    for (p++; *p != '"'; p++) p += *p == '\\';
    return p + 1;
}

NEVER_INLINE const char *past_value(const char *p) {
    size_t depth = 0;
    do {
        if (*p == '"') {
            p = past_string(p);
            continue;
        }
        if (*p == '{' || *p == '[') depth++;
        if (*p == '}' || *p == ']') depth--;
        p++;
    } while (depth > 0);
    while (*p != ',' && *p != '}' && *p != ']') p++; /* the rest of a number or a word, and space */
    return p;
}

bsx_json_kind bsx_json_kind_of(const char *value) {
    switch (*value) {
    case '{': return BSX_JSON_OBJECT;
    case '[': return BSX_JSON_ARRAY;
    case '"': return BSX_JSON_STRING;
    case 'n': return BSX_JSON_NULL;
    case 't':
    case 'f': return BSX_JSON_BOOLEAN;
    default: break;
    }
    const char *end = value + (*value == '-');
    while (is_digit(*end)) end++;
    return *end == '.' || *end == 'e' || *end == 'E' ? BSX_JSON_FRACTION : BSX_JSON_INTEGER;
}

const char *bsx_json_kind_name(bsx_json_kind kind) {
    static const char *const names[] = {"null", "a boolean", "an integer", "a fraction", "a string", "an array", "an object"};
    return names[kind];
}

const char *bsx_json_first(const char *container) {
    const char *p = past_space(container + 1);
    return *p == ']' || *p == '}' ? NULL : p;
}

const char *bsx_json_next_element(const char *element) {
    const char *p = past_value(element);
    return *p == ',' ? past_space(p + 1) : NULL;
}

const char *bsx_json_value(const char *key) { return past_space(past_space(past_string(key)) + 1); }

const char *bsx_json_next_key(const char *key) { return bsx_json_next_element(bsx_json_value(key)); }

const char *bsx_json_member(const char *object, const char *key) {
    for (const char *found = bsx_json_first(object); found; found = bsx_json_next_key(found)) {
        if (bsx_json_string_is(found, key)) return bsx_json_value(found);
    }
    return NULL;
}

size_t bsx_json_read_string(const char *string, char *out, size_t room) {
    size_t size = 0;
    for (const char *p = string + 1; *p != '"';) {
        char bytes[4];
        const size_t length = write_utf8(read_character(&p), bytes);
        if (size < room) memcpy(out + size, bytes, length < room - size ? length : room - size);
        size += length;
    }
    return size;
}

bool bsx_json_string_is(const char *string, const char *expected) {
    for (const char *p = string + 1; *p != '"';) {
        char bytes[4];
        const size_t length = write_utf8(read_character(&p), bytes);
        if (bytes[0] == 0 || strncmp(expected, bytes, length) != 0) return false;
        expected += length;
    }
    return *expected == 0;
}

bool bsx_json_natural(const char *integer, uint64_t limit, uint64_t *number) {
    uint64_t x = 0;
    const bool negative = *integer == '-';
    for (const char *p = integer + negative; is_digit(*p); p++) {
        const uint64_t digit = (uint64_t)(*p - '0');
        if (x > (limit - 1) / 10 || 10 * x + digit >= limit) return false;
        x = 10 * x + digit;
    }
    if (negative && x > 0) return false;
    *number = x;
    return true;
}

size_t bsx_json_number_length(const char *number) { return strspn(number, "+-.0123456789eE"); }
