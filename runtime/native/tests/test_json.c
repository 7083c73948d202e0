/* test_json.c - what is JSON and what is not, and what is read of it. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "json.h"

/* The verdict on a text that lies in memory of exactly its size. */
static bsx_json_verdict verdict(const char *text, size_t size) {
    const char *value;
    char *exact = malloc(size + (size == 0));
    memcpy(exact, text, size);
    const bsx_json_verdict found = bsx_json_check(exact, size, &value);
    free(exact);
    return found;
}

static const char *const sound[] = {
    "null", "true", "false", "0", "-0", "7", "-12", "0.5", "1e5", "1E+5", "-1.25e-7", "1e999", "\"\"", "[]", "{}",
    " [ 1 , 2 ] ", "\t{\r\n\"a\" : [ { } , null ] }\n", "{\"a\":1,\"b\":{\"a\":1}}", "[{\"a\":1},{\"a\":2}]",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\"", "\"\\ud83d\\ude00\"", "\"\\uFFFF\"", "\"\\u0000\"", "\"\x7f\"",
    "\"\xc2\x80\"", "\"\xed\x9f\xbf\"", "\"\xee\x80\x80\"", "\"\xf0\x90\x80\x80\"", "\"\xf4\x8f\xbf\xbf\"",
    "{\"\":0,\" \":0}", "{\"a\":0,\"A\":0,\"aa\":0,\"\\u0061b\":0}",
};

static const char *const broken[] = {
    "", " ", "nul", "nulll", "True", "NaN", "Infinity", "-Infinity", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+",
    "0x1", "1 2", "'a'", "\"", "\"a", "\"\\", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\u 123\"",
    "\"\n\"", "\"\x1f\"", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{", "}", "{\"a\"", "{\"a\":", "{\"a\":1",
    "{\"a\":1,", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "{\"a\":}", "[}", "{]", "[1}", "{\"a\":1]",
    "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud800x\"", "\"\\ud800\\ud800\"", "\"\\ud83d\\ude0\"",
    "\"\x80\"", "\"\xc0\x80\"", "\"\xc1\xbf\"", "\"\xc3\"", "\"\xe0\x9f\xbf\"", "\"\xed\xa0\x80\"",
    "\"\xf0\x8f\xbf\xbf\"", "\"\xf4\x90\x80\x80\"", "\"\xf8\x88\x80\x80\x80\"", "\"\xff\"", "\"\xe2\x82", "\xc3\xa9",
    "\xef\xbb\xbf{}", "// no\n1", "{\"a\":1,\"a\":1}", "{\"a\":1,\"b\":2,\"\\u0061\":3}",
    "{\"\xc3\xa9\":1,\"\\u00e9\":1}", "[{\"x\":{\"a\":1,\"a\":2}}]", "{\"\":1,\"\":2}",
};

static void test_verdicts(void) {
    for (size_t i = 0; i < sizeof sound / sizeof sound[0]; i++) {
        CHECK_ROW(verdict(sound[i], strlen(sound[i])) == BSX_JSON_SOUND, sound[i]);
    }
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        CHECK_ROW(verdict(broken[i], strlen(broken[i])) == BSX_JSON_BROKEN, broken[i]);
    }
    CHECK(verdict("[1]\0", 4) == BSX_JSON_BROKEN);
    CHECK(verdict("[\"a\0b\"]", 7) == BSX_JSON_BROKEN);
    CHECK(verdict("[1, 2]", 5) == BSX_JSON_BROKEN); /* cut */
}

static void test_limits(void) {
    enum { MANY = 100000 };
    static char text[MANY];
    memset(text, '[', BSX_JSON_DEPTH);
    memset(text + BSX_JSON_DEPTH, ']', BSX_JSON_DEPTH);
    CHECK(verdict(text, 2 * BSX_JSON_DEPTH) == BSX_JSON_SOUND);
    memset(text, '[', BSX_JSON_DEPTH + 1);
    memset(text + BSX_JSON_DEPTH + 1, ']', BSX_JSON_DEPTH + 1);
    CHECK(verdict(text, 2 * BSX_JSON_DEPTH + 2) == BSX_JSON_BROKEN);
    memset(text, '[', MANY);
    CHECK(verdict(text, MANY) == BSX_JSON_BROKEN);
    memset(text, '9', MANY);
    CHECK(verdict(text, BSX_JSON_DIGITS) == BSX_JSON_SOUND);
    CHECK(verdict(text, BSX_JSON_DIGITS + 1) == BSX_JSON_BROKEN);
}

/* Many keys, of which the last may be one that was there. */
static void test_many_keys(void) {
    enum { KEYS = 5000, ROOM = 16 };
    static char text[KEYS * ROOM];
    size_t size = 0;
    text[size++] = '{';
    for (int i = 0; i < KEYS; i++) size += (size_t)snprintf(text + size, ROOM, "\"k%d\":%d,", i * 7919 % KEYS, i);
    memcpy(text + size, "\"k5000\":0}", 10);
    CHECK(verdict(text, size + 10) == BSX_JSON_SOUND);
    memcpy(text + size, "\"k4321\":0}", 10);
    CHECK(verdict(text, size + 10) == BSX_JSON_BROKEN);
}

static bool string_reads(const char *json, const char *expected, size_t size) {
    char out[16];
    memset(out, '#', sizeof out);
    return bsx_json_read_string(json, out, sizeof out) == size && memcmp(out, expected, size) == 0 && out[size] == '#';
}

static void test_strings(void) {
    char out[4] = "####";
    CHECK(string_reads("\"\"", "", 0));
    CHECK(string_reads("\"a\\u00e9\\\\\"", "a\xc3\xa9\\", 4));
    CHECK(string_reads("\"\\ud83d\\ude00\"", "\xf0\x9f\x98\x80", 4));
    CHECK(string_reads("\"\\u20ac\xe2\x82\xac\"", "\xe2\x82\xac\xe2\x82\xac", 6));
    CHECK(string_reads("\"\\u0000\\u007f\\u0080\\u07ff\\u0800\"", "\0\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80", 9));
    CHECK(bsx_json_read_string("\"abcdef\"", out, 3) == 6 && memcmp(out, "abc#", 4) == 0);
    CHECK(bsx_json_string_is("\"\\u00e9a\"", "\xc3\xa9" "a"));
    CHECK(!bsx_json_string_is("\"ab\"", "a") && !bsx_json_string_is("\"a\"", "ab") && !bsx_json_string_is("\"\"", "a"));
    CHECK(!bsx_json_string_is("\"a\\u0000\"", "a") && !bsx_json_string_is("\"\\u0000\"", ""));
}

static void test_numbers(void) {
    uint64_t x = 99;
    const uint64_t limit = UINT64_C(1) << 62;
    CHECK(bsx_json_natural("0]", limit, &x) && x == 0);
    CHECK(bsx_json_natural("-0]", limit, &x) && x == 0);
    CHECK(bsx_json_natural("4611686018427387903]", limit, &x) && x == limit - 1);
    CHECK(!bsx_json_natural("4611686018427387904]", limit, &x) && x == limit - 1);
    CHECK(!bsx_json_natural("18446744073709551616]", limit, &x)); /* 2^64 */
    CHECK(!bsx_json_natural("-1]", limit, &x) && !bsx_json_natural("5]", 5, &x) && bsx_json_natural("4]", 5, &x));
    CHECK(bsx_json_number_length("-1.5e+7, 8") == 7);
}

static void test_places(void) {
    const char text[] = " { \"a\" : [1, [2, \"],\\\"\"], {\"b\": {}}, 2.5] ,\"empty\":[ ],\"\\u0062\":null, \"t\":true}";
    const char *json;
    CHECK(bsx_json_check(text, sizeof text - 1, &json) == BSX_JSON_SOUND && json == text + 1);
    CHECK(bsx_json_kind_of(json) == BSX_JSON_OBJECT);
    const char *a = bsx_json_member(json, "a");
    const char *element = bsx_json_first(a);
    static const bsx_json_kind kinds[] = {BSX_JSON_INTEGER, BSX_JSON_ARRAY, BSX_JSON_OBJECT, BSX_JSON_FRACTION};
    for (size_t i = 0; i < 4; i++, element = bsx_json_next_element(element)) {
        CHECK(element && bsx_json_kind_of(element) == kinds[i]);
    }
    CHECK(element == NULL);
    CHECK(bsx_json_first(bsx_json_member(json, "empty")) == NULL);
    CHECK(bsx_json_kind_of(bsx_json_member(json, "b")) == BSX_JSON_NULL);
    CHECK(bsx_json_kind_of(bsx_json_member(json, "t")) == BSX_JSON_BOOLEAN);
    CHECK(bsx_json_member(json, "c") == NULL && bsx_json_member(json, "") == NULL);
    CHECK(bsx_json_kind_of("1E5]") == BSX_JSON_FRACTION && bsx_json_kind_of("-3,") == BSX_JSON_INTEGER);
    CHECK(strcmp(bsx_json_kind_name(BSX_JSON_ARRAY), "an array") == 0);
}

void test_json(void) {
    test_verdicts();
    test_limits();
    test_many_keys();
    test_strings();
    test_numbers();
    test_places();
}
