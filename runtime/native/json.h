/* json.h - a strict reader of JSON (RFC 8259) that builds no tree: bsx_json_check goes over a text once, and what it has
 * found sound is then read in place. A value is a pointer to its first character.
 *
 * All functions but bsx_json_check are for values of a checked text whose outermost value is an object or an array; they
 * need no sizes, since each ends at a quote or a bracket that is known to be there. */
#ifndef BSX_JSON_H
#define BSX_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BSX_JSON_DEPTH 100U   /* arrays and objects in one another */
#define BSX_JSON_DIGITS 4300U /* of an integer; Python reads no longer ones either */

typedef enum bsx_json_verdict { BSX_JSON_SOUND, BSX_JSON_BROKEN, BSX_JSON_NO_MEMORY } bsx_json_verdict;

/* Is it one JSON value in UTF-8? Refused beside what is no JSON: a byte order mark, NaN and infinities, half a surrogate
 * pair, a key that is twice in one object, more than BSX_JSON_DEPTH levels. Takes 8 bytes of memory for each key of the
 * objects that are open at a time, none for anything else. text: set to the value. */
bsx_json_verdict bsx_json_check(const char *content, size_t size, const char **text);

typedef enum bsx_json_kind {
    BSX_JSON_NULL,
    BSX_JSON_BOOLEAN,
    BSX_JSON_INTEGER,
    BSX_JSON_FRACTION, /* a number with a point or an exponent */
    BSX_JSON_STRING,
    BSX_JSON_ARRAY,
    BSX_JSON_OBJECT
} bsx_json_kind;

bsx_json_kind bsx_json_kind_of(const char *value);
const char *bsx_json_kind_name(bsx_json_kind kind);

/* The first element of an array, or the first key of an object; NULL if there is none. */
const char *bsx_json_first(const char *container);
/* The element after this one, or the key after this key's value; NULL if there is none. */
const char *bsx_json_next_element(const char *element);
const char *bsx_json_next_key(const char *key);
/* The value that belongs to a key. */
const char *bsx_json_value(const char *key);
/* The value of that key of the object, NULL if it has none. key is in UTF-8 and ends with a zero. */
const char *bsx_json_member(const char *object, const char *key);

/* Bytes of a string in UTF-8, of which the first `room` are written to out; there is no zero behind them. */
size_t bsx_json_read_string(const char *string, char *out, size_t room);
/* Is it this one, in UTF-8 and with a zero behind it? Never a string that has a zero in it. */
bool bsx_json_string_is(const char *string, const char *expected);

/* An integer of 0 to limit - 1, limit <= 2^63. False: it is another one. */
bool bsx_json_natural(const char *integer, uint64_t limit, uint64_t *number);
/* Characters that a number is written with. */
size_t bsx_json_number_length(const char *number);

#endif
