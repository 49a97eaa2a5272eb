"""The English half of the sample task: facts, wordings and phrases."""

from scripts.sample.topic import (
    Language,
    both_ways,
    count_facts,
    double_facts,
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
strong=weak; clean=dirty; near=far; top=bottom; first=last; win=lose; push=pull; give=take; buy=sell; black=white;
true=false; thick=thin; deep=shallow; wide=narrow; begin=end; love=hate; front=back; north=south; east=west;
inside=outside; always=never; asleep=awake; above=below; day=night"""
SOUNDS = """a dog=woof; a cat=meow; a cow=moo; a sheep=baa; a duck=quack; a pig=oink; a horse=neigh; a lion=roar; a frog=ribbit;
a bee=buzz; a snake=hiss; an owl=hoot; a mouse=squeak; a bird=tweet; a donkey=hee-haw; a wolf=howl; a turkey=gobble;
a crow=caw; a goose=honk; a hen=cluck"""
BABIES = """dog=a puppy; cat=a kitten; cow=a calf; sheep=a lamb; duck=a duckling; pig=a piglet; horse=a foal; lion=a cub;
goat=a kid; goose=a gosling; hen=a chick; frog=a tadpole; kangaroo=a joey; deer=a fawn; swan=a cygnet; owl=an owlet"""
LEGS = """4: a dog, a cat, a horse, a cow, an elephant, a rabbit, a mouse, a lion, a sheep, a pig;
2: a bird, a duck, a hen, a goose, an owl, a swan; 6: an ant, a bee, a butterfly, a fly, a beetle; 8: a spider, a scorpion;
10: a crab; 0: a snake, a fish, a worm, a whale"""
COLOURS = """green: grass, a cucumber, lettuce, a pea, broccoli, a frog; white: snow, milk, salt, cotton, a polar bear, a swan;
yellow: a banana, a lemon, a sunflower, the sun, butter; red: a tomato, blood, a strawberry, a cherry, a fire engine;
black: coal, soot, a crow, a tyre; orange: a carrot, a pumpkin; brown: chocolate, coffee, cocoa; grey: an elephant, ash;
pink: a flamingo; purple: an aubergine, lavender; blue: the sky, the sea"""
CAPITALS = """France=Paris; China=Beijing; Japan=Tokyo; Italy=Rome; Spain=Madrid; Germany=Berlin; Russia=Moscow; Egypt=Cairo;
Greece=Athens; Portugal=Lisbon; Austria=Vienna; Poland=Warsaw; Norway=Oslo; Sweden=Stockholm; Finland=Helsinki;
Denmark=Copenhagen; Ireland=Dublin; Canada=Ottawa; Cuba=Havana; Peru=Lima; Chile=Santiago; Kenya=Nairobi; India=New Delhi;
Thailand=Bangkok; Vietnam=Hanoi; Hungary=Budapest; Iraq=Baghdad; Iran=Tehran; Turkey=Ankara; Nepal=Kathmandu;
Belgium=Brussels; Australia=Canberra; Argentina=Buenos Aires; South Korea=Seoul; England=London"""
PLURALS = """child=children; mouse=mice; foot=feet; tooth=teeth; man=men; woman=women; goose=geese; leaf=leaves; knife=knives;
wolf=wolves; box=boxes; bus=buses; city=cities; baby=babies; dish=dishes; tomato=tomatoes; potato=potatoes; fox=foxes;
glass=glasses; cat=cats; dog=dogs; book=books; tree=trees; car=cars; story=stories; key=keys; party=parties; toy=toys;
watch=watches; brush=brushes; hero=heroes; shelf=shelves; ox=oxen; fly=flies; cherry=cherries"""
CHINESE = """cat=猫; dog=狗; water=水; book=书; apple=苹果; tea=茶; tree=树; flower=花; moon=月亮; sun=太阳; mountain=山; fire=火;
fish=鱼; bird=鸟; horse=马; door=门; hand=手; milk=牛奶; bread=面包; egg=鸡蛋; teacher=老师; school=学校; friend=朋友;
snow=雪; rain=雨; car=汽车; train=火车; plane=飞机; chair=椅子; table=桌子; window=窗户; hat=帽子; star=星星; sheep=羊; cow=牛"""
KINDS = """a fruit: an apple, a banana, a pear, a grape, a peach; a vegetable: a carrot, an onion, a cabbage, a potato;
a flower: a rose, a tulip, a lily; a tool: a hammer, a saw, a screwdriver; a musical instrument: a piano, a violin, a drum, a guitar;
a piece of furniture: a chair, a table, a bed, a wardrobe; a piece of clothing: a shirt, a coat, a sock, a skirt;
a vehicle: a bus, a train, a lorry, a bicycle; a drink: tea, milk, juice, lemonade; a bird: an eagle, a sparrow, a swan, a parrot;
a tree: an oak, a pine, a willow; an insect: an ant, a bee, a beetle; a fish: a salmon, a tuna, a shark"""
USES = """cut paper=scissors; tell the time=a clock; write a letter=a pen; hit a nail=a hammer; sweep the floor=a broom;
open a lock=a key; brush your teeth=a toothbrush; dry your hands=a towel; stay dry in the rain=an umbrella; eat soup=a spoon;
slice bread=a knife; draw a straight line=a ruler; look at the stars=a telescope; comb your hair=a comb; boil water=a kettle;
take photos=a camera; sew on a button=a needle; dig a hole=a shovel; wash your hands=soap; keep food cold=a fridge;
call a friend=a phone; rub out a pencil line=an eraser; light a dark room=a lamp; climb onto the roof=a ladder"""

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
        "double",
        double_facts(),
        ["What is (double|twice|two times) {0}?", "How much is (twice|two times) {0}?", "Double the number {0}."],
        ["(Double|Twice|Two times) {0} is {answer}"],
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
    make_topic(
        "plural",
        pairs(PLURALS),
        ["What is the plural of {0}?", "(Give|Tell) me the plural of {0}.", "One {0}, two what?", "What do you call more than one {0}?"],
        ["The plural of {0} is {answer}", "One {0}, two {answer}"],
    ),
    make_topic(
        "translation",
        pairs(CHINESE),
        ["How do you say {0} in Chinese?", "What is {0} in Chinese?", "(Which|What) is the Chinese word for {0}?"],
        ["The Chinese word for {0} is {answer}", "{0} is {answer} in Chinese"],
    ),
    make_topic(
        "kind",
        groups(KINDS),
        ["What (kind|sort) of thing is {0}?", "What is {0}?", "(Tell me|Say) what {0} is."],
        ["{0} is {answer}"],
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
        "sound",
        pairs(SOUNDS),
        ["(What|Which) (sound|noise) does {0} make?", "What does {0} say?", "How does {0} sound?"],
        ["{0} (says|goes) {answer}"],
    ),
    make_topic(
        "baby",
        pairs(BABIES),
        ["What do (you|we|people) call a baby {0}?", "What is a baby {0} called?", "What is the name for a (baby|young) {0}?"],
        ["A (baby|young) {0} is called {answer}"],
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
    make_topic(
        "use",
        pairs(USES),
        ["What do (you|people) (use|need) to {0}?", "(Which|What) thing do you use to {0}?"],
        ["You (use|need) {answer} to {0}"],
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
