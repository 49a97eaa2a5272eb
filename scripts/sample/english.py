"""The English half of the sample task: facts, wordings and phrases."""

from scripts.sample.topic import (
    Language,
    both_ways,
    count_facts,
    expand,
    groups,
    make_topic,
    minus_facts,
    neighbours,
    pairs,
    plus_facts,
)

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]  # fmt: skip

OPPOSITES = """hot=cold; big=small; up=down; happy=sad; full=empty; fast=slow; wet=dry; loud=quiet; early=late; rich=poor;
strong=weak; clean=dirty; near=far; first=last; open=closed; black=white; day=night"""
LEGS = """4: a dog, a cat, a horse, a cow, an elephant, a rabbit, a mouse, a lion, a sheep, a pig;
2: a bird, a duck, a hen, a goose, an owl, a swan; 6: an ant, a bee, a butterfly, a fly, a beetle; 8: a spider, a scorpion;
10: a crab; 0: a snake, a fish, a worm, a whale"""
COLOURS = """green: grass, a cucumber, lettuce, a pea, broccoli, a frog; white: snow, milk, salt, cotton, a polar bear, a swan;
yellow: a banana, a lemon, a sunflower, the sun, butter; red: a tomato, blood, a strawberry, a cherry, a fire engine;
black: coal, soot, a crow, a tyre; orange: a carrot, a pumpkin; brown: chocolate, coffee, cocoa; grey: an elephant, ash;
pink: a flamingo; purple: an aubergine, lavender; blue: the sky, the sea"""
CAPITALS = """France=Paris; China=Beijing; Japan=Tokyo; Italy=Rome; Spain=Madrid; Germany=Berlin; Russia=Moscow; Egypt=Cairo;
Greece=Athens; Portugal=Lisbon; Austria=Vienna; Poland=Warsaw; Norway=Oslo; Sweden=Stockholm; Canada=Ottawa; Cuba=Havana;
India=New Delhi; England=London"""

NUMBERS = (
    make_topic(
        "plus",
        plus_facts(),
        [
            "(What|How much) is {0} (+|plus) {1}?",
            "What (do you get|is the result) when you add {0} and {1}?",
            "(Add|Add up) {0} and {1}.",
            "What is the sum of {0} and {1}?",
            "I have {0} (apples|books|eggs|coins|pens) and get {1} more. How many do I have now?",
            "There are {0} (birds|cats|children) in the garden and {1} more come. How many are there now?",
        ],
        ["{0} (+|plus|and) {1} (is|makes|equals) {answer}"],
        10,
    ),
    make_topic(
        "minus",
        minus_facts(),
        [
            "(What|How much) is {0} (-|minus) {1}?",
            "What is left when you take {1} from {0}?",
            "(Take {1} away|Subtract {1}) from {0}.",
            "I have {0} (apples|books|eggs|coins|pens) and give away {1}. How many are left?",
            "There are {0} (birds|cats|children) in the garden and {1} leave. How many are left?",
        ],
        ["{0} (-|minus) {1} (is|equals|leaves) {answer}"],
        6,
    ),
    make_topic(
        "number after",
        count_facts(1),
        ["(Which|What) number comes (right|just) after {0}?", "What number follows {0}?", "I count up to {0}. Which number is next?"],
        ["The number after {0} is {answer}", "{answer} comes (right|just) after {0}"],
    ),
    make_topic(
        "number before",
        count_facts(-1),
        ["(Which|What) number comes (right|just) before {0}?", "I count down to {0}. Which number is next?"],
        ["The number before {0} is {answer}", "{answer} comes (right|just) before {0}"],
    ),
)

CALENDAR = (
    make_topic(
        "day after",
        neighbours(DAYS, 1),
        [
            "(Which|What) day (comes after|follows|comes right after) {0}?",
            "Today is {0}. (What|Which) day is tomorrow?",
            "If today is {0}, (what|which) day will it be tomorrow?",
            "Yesterday was {0}. What day is it today?",
        ],
        ["The day after {0} is {answer}", "{answer} (comes after|follows) {0}"],
    ),
    make_topic(
        "day before",
        neighbours(DAYS, -1),
        [
            "(Which|What) day comes (before|right before|just before) {0}?",
            "Today is {0}. (What|Which) day was yesterday?",
            "If today is {0}, (what|which) day was yesterday?",
            "Tomorrow is {0}. What day is it today?",
        ],
        ["The day before {0} is {answer}", "{answer} comes (before|right before) {0}"],
    ),
    make_topic(
        "month after",
        neighbours(MONTHS, 1),
        ["(Which|What) month (comes after|follows|comes right after) {0}?", "It is {0} now. (What|Which) month is next?"],
        ["The month after {0} is {answer}", "{answer} (comes after|follows) {0}"],
    ),
    make_topic(
        "month before",
        neighbours(MONTHS, -1),
        ["(Which|What) month comes (before|right before|just before) {0}?", "It is {0} now. (What|Which) month was last month?"],
        ["The month before {0} is {answer}", "{answer} comes (before|right before) {0}"],
    ),
)

WORDS = (
    make_topic(
        "opposite",
        both_ways(OPPOSITES),
        ["What is the opposite of {0}?", "(Give|Tell) me the opposite of {0}.", "(Which|What) word is the opposite of {0}?"],
        ["The opposite of {0} is {answer}", "{answer} is the opposite of {0}"],
        3,
    ),
)

WORLD = (
    make_topic(
        "capital",
        pairs(CAPITALS),
        ["What is the capital (|city )of {0}?", "(Which|What) city is the capital of {0}?", "(Name|Tell me) the capital of {0}."],
        ["The capital (|city )of {0} is {answer}", "{answer} is the capital of {0}"],
    ),
    make_topic(
        "legs",
        groups(LEGS),
        [
            "How many legs does {0} have?",
            "What number of legs does {0} have?",
            "How many legs can you count on {0}?",
            "Count the legs of {0}.",
        ],
        ["{0} has {answer} legs"],
    ),
    make_topic(
        "colour",
        groups(COLOURS),
        ["(What|Which) colour is {0}?", "What is the colour of {0}?", "(Name|Tell me) the colour of {0}."],
        ["{0} is {answer}", "The colour of {0} is {answer}"],
    ),
)

ENGLISH = Language(
    code="en",
    topics=NUMBERS + CALENDAR + WORDS + WORLD,
    greetings=("Hi!", "Hello!", "Hello there!", "Good morning!", "Good evening!", "Hi there!", "Nice to see you!", "Hello, my friend!"),
    thanks=("Thank you!", "Thanks a lot!", "Many thanks!", "Thank you so much!", "Thanks in advance!"),
    labels=("", "", "", "Question:", "Quick question:", "Next:"),
    openings=(
        "Happy to help!", "Of course!", "What a nice question!", "I am glad you asked!", "With pleasure!", "Sure, my friend!",
        "What a lovely question!", "Thanks for asking!", "Good thinking!", "Gladly!",
    ),
    closings=(
        "Have a lovely day! 😊", "Ask me any time! 🌟", "Well done for asking!", "I hope that helps! 😊", "You are doing great! 👍",
        "Keep up the good work! 🎉", "Enjoy your day! 🌈", "Feel free to ask more! 😊", "It was a joy to help! 🌟", "Take good care!",
    ),
    stiff_openings=("", "", "", "", "Answer:", "Obviously.", "Again?"),
    stiff_closings=("", "", "", "Next.", "Do not ask again.", "Everyone knows that.", "That is all.", "Look it up next time."),
    short=expand("(The answer is|The right answer is|My answer is) {answer}"),
    space=" ",
    stop=".",
)  # fmt: skip
